// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.28;

import {Question} from "../../src/interfaces/IArbiter.sol";
import {Bid, IEscrow, Rules, Terms} from "../../src/interfaces/IEscrow.sol";
import {HastyArbiter} from "../utils/Arbiters.sol";
import {DisputeTest} from "../utils/LeaseTest.sol";

/* challenge
 * ├── the lease is unknown, Closed or Challenged: reverts
 * ├── nothing is pending: reverts
 * ├── the window has passed: reverts
 * ├── the rules are not the lease's: reverts
 * ├── the ground is none of the two: reverts
 * ├── there are more or fewer roots than pending: reverts
 * ├── k is not pending: reverts
 * ├── accepted tip and roots don't give the claimed tip: reverts
 * ├── the caller's free balance does not cover the bond: reverts
 * │   └── which is, but for the fee, the price of all that is pending; of client and approver at most the stake
 * ├── the arbiter refuses, or is no contract: reverts
 * └── else
 *     ├── from Active: Challenged at the accepted tip, the bond is locked, the arbiter is asked
 *     ├── from Closing: noted
 *     ├── for a root in the middle: the tip before it is named
 *     └── the arbiter calls back at once: sees the lease Challenged
 */
contract ChallengeTest is DisputeTest {
    function test_RevertWhen_Unknown() external {
        Terms memory other = terms;
        other.nums ^= 1;
        _expectWrongPhase(_id(other), 0);
        _challenge(other, 1, 3, 2);
    }

    function test_RevertWhen_Closed() external {
        _end(terms, provider);
        _closeAfterWindow(terms);
        _expectWrongPhase(lease, CLOSED);
        _challenge(terms, 1, 3, 2);
    }

    function test_RevertWhen_Challenged() external {
        _challenge(terms, 1, 3, 2);
        _expectWrongPhase(lease, CHALLENGED);
        _challenge(terms, 1, 3, 2);
    }

    function test_RevertWhen_NothingPending() external {
        _redeem(terms, 3);
        vm.expectRevert(abi.encodeWithSelector(IEscrow.Escrow_NothingPending.selector, lease));
        _challenge(terms, 3, 3, 4);
    }

    function test_RevertWhen_TooLate() external {
        vm.warp(START_TIME + WINDOW);
        vm.expectRevert(
            abi.encodeWithSelector(IEscrow.Escrow_TooLate.selector, START_TIME + WINDOW, START_TIME + WINDOW - 1)
        );
        _challenge(terms, 1, 3, 2);
        vm.warp(START_TIME + WINDOW - 1);
        _challenge(terms, 1, 3, 2);
    }

    function test_RevertWhen_RulesDiffer() external {
        Rules memory other = rules;
        other.arbiterFee = 0;
        _expectRulesMismatch(other);
        vm.prank(challenger);
        escrow.challenge(terms, other, _tip(1), _roots(2, 3), 2, 0);
    }

    function test_RevertWhen_GroundUnknown() external {
        _expectBadIndex(2, 0, 1);
        vm.prank(challenger);
        escrow.challenge(terms, rules, _tip(1), _roots(2, 3), 2, 2);
    }

    function test_RevertWhen_RootCountDiffers() external {
        _expectBadIndex(1, 2, 2);
        _challenge(terms, 1, 2, 2);
        _expectBadIndex(3, 2, 2);
        _challenge(terms, 1, 4, 2);
    }

    function test_RevertWhen_KNotPending() external {
        for (uint16 k = 1; k <= 4; k += 3) {
            _expectBadIndex(k, 2, 3);
            _challenge(terms, 1, 3, k);
        }
    }

    function test_RevertWhen_TipsDiffer() external {
        bytes20 wrong = _extended(_tip(2), _roots(2, 3));
        vm.expectRevert(abi.encodeWithSelector(IEscrow.Escrow_TipMismatch.selector, _tip(3), wrong));
        vm.prank(challenger);
        escrow.challenge(terms, rules, _tip(2), _roots(2, 3), 2, 0);

        bytes32[] memory roots = _roots(2, 3);
        roots[1] = _root(4);
        vm.expectRevert();
        vm.prank(challenger);
        escrow.challenge(terms, rules, _tip(1), roots, 2, 0);
    }

    function test_RevertWhen_BondShort() external {
        _withdraw(challenger, FUNDS - BOND + 1);
        vm.expectRevert(abi.encodeWithSelector(IEscrow.Escrow_BalanceShort.selector, challenger, BOND - 1, BOND));
        _challenge(terms, 1, 3, 2);
    }

    function test_BondOfTheLeasesOwn() external {
        _useAnotherClient();
        Bid memory bid = _bid();
        bid.stake = 7e6; // between the prices of three and of four
        _useLease(_open(_match(bid, _ask())));
        _fund(approver, FUNDS);
        _assertBond(bid, client, 3, 6e6);
        _assertBond(bid, client, 4, 7e6);
        _assertBond(bid, approver, 4, 7e6);
        _assertBond(bid, approver, 1, 2e6);
        _assertBond(bid, challenger, 4, 8e6);
        _assertBond(bid, provider, 4, 8e6);
    }

    /// All its money is in the lease, but for fee and stake.
    function test_ClientNeedsNoPriceAgain() external {
        _redeem(terms, 3);
        _claim(terms, 4, CHECKPOINTS);
        _withdraw(client, _free(client) - ARBITER_FEE - 3 * PRICE);
        vm.prank(client);
        escrow.challenge(terms, rules, _tip(3), _roots(4, CHECKPOINTS), 4, 0);
        assertEq(_free(client), 0, "client");
    }

    function test_RevertWhen_ArbiterRefuses() external {
        arbiter.setRefuses(true);
        vm.expectRevert("not this one");
        _challenge(terms, 1, 3, 2);
        _assertState(lease, ACTIVE, 1, 1, 3, _tip(3));
        assertEq(_free(challenger), FUNDS, "challenger");
    }

    function test_RevertWhen_ArbiterIsNoContract() external {
        _useLease(_openedUnder(stranger));
        _claim(terms, 1, 1);
        vm.expectRevert();
        _challenge(terms, 0, 1, 1);
    }

    function test_FromActive() external {
        vm.warp(START_TIME + 60);
        bytes32 id = _disputeId(1, _tip(3), 2, 1);
        vm.expectEmit(address(escrow));
        emit IEscrow.Challenged(
            lease, id, challenger, 2, _tip(1), _root(2), 1, 0, BOND, address(arbiter), ARBITER_FEE
        );
        vm.prank(challenger);
        escrow.challenge(terms, rules, _tip(1), _roots(2, 3), 2, 1);

        _assertState(lease, CHALLENGED, 1, 1, 3, _tip(1));
        _assertTime(lease, START_TIME + 60);
        assertEq(_free(challenger), FUNDS - BOND, "challenger");
        assertEq(_active(provider), 1, "active");
        _assertDispute(id, challenger, BOND, _tip(3));
        _assertAsked(id, 2, 1);
    }

    function test_FromClosing() external {
        _end(terms, client);
        _challenge(terms, 1, 3, 2);
        _assertState(lease, CHALLENGED | FROM_CLOSING | BY_CLIENT, 1, 1, 3, _tip(1));
        assertEq(_active(provider), 0, "active");
    }

    function test_RootInTheMiddle() external {
        _claim(terms, 4, CHECKPOINTS);
        _challenge(terms, 1, CHECKPOINTS, 4);
        _assertAsked(_disputeId(1, _tip(CHECKPOINTS), 4, 0), 4, 0);
    }

    function test_ArbiterCallsBack() external {
        HastyArbiter hasty = new HastyArbiter(escrow);
        _useLease(_openedUnder(address(hasty)));
        _claim(terms, 1, 1);
        hasty.prepare(terms, rules, 2);
        _challenge(terms, 0, 1, 1);
        _assertState(lease, CLOSED, 0, 0, 0, bytes20(JOB));
        assertEq(_free(challenger), FUNDS + REWARD, "challenger");
        assertEq(_free(address(hasty)), ARBITER_FEE, "arbiter");
    }

    function test_ChallengerIsProvider() external {
        uint256 free = _free(provider);
        vm.prank(provider);
        escrow.challenge(terms, rules, _tip(1), _roots(2, 3), 3, 0);
        assertEq(_free(provider), free - BOND, "provider");
    }

    /// @dev What the caller is asked for a challenge of `count` pending roots, above the fee; and of as many signed ones.
    function _assertBond(Bid memory bid, address who, uint16 count, uint256 expected) private {
        bytes memory signature = _signedClaim(terms, count, _tip(count));
        vm.prank(who);
        escrow.challengeSigned(terms, rules, _tip(0), _roots(1, 0), _roots(1, count), 1, 0, signature);
        (,, uint96 bond,) = escrow.dispute(lease);
        assertEq(bond, ARBITER_FEE + expected, "bond for signed ones");
        _resolve(terms, 1);
        _claim(terms, 1, count);
        vm.prank(who);
        escrow.challenge(terms, rules, _tip(0), _roots(1, count), 1, 0);
        (,, bond,) = escrow.dispute(lease);
        assertEq(bond, ARBITER_FEE + expected, "bond");
        _resolve(terms, 2);
        _useLease(_openFrom(_continue(bid, _ask(), terms), 0));
    }

    function _openedUnder(address otherArbiter) private returns (Terms memory) {
        rules.arbiter = otherArbiter;
        return _open(_match(_bid(1), _ask()));
    }

    function _assertAsked(bytes32 id, uint32 k, uint8 ground) private view {
        Question memory expected = Question({
            id: id,
            lease: lease,
            job: JOB,
            rules: terms.parties.rules,
            provider: provider,
            challenger: challenger,
            k: k,
            before: bytes32(_tip(k - 1)),
            claimed: _root(k),
            ground: ground
        });
        assertEq(arbiter.asked(), 1, "questions");
        assertEq(keccak256(abi.encode(arbiter.last())), keccak256(abi.encode(expected)), "question");
    }
}
