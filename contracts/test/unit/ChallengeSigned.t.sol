// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.28;

import {Question} from "../../src/interfaces/IArbiter.sol";
import {IEscrow, Rules, Terms} from "../../src/interfaces/IEscrow.sol";
import {HastyArbiter} from "../utils/Arbiters.sol";
import {LeaseTest} from "../utils/LeaseTest.sol";
import {Wallet} from "../utils/Wallets.sol";

/* challengeSigned
 * ├── the lease is unknown, Closed or Challenged: reverts
 * ├── Closing, and its window has passed: reverts
 * ├── the rules are not the lease's, the ground is none of the two: reverts
 * ├── the pending roots are not all of them, or others, or follow on another tip: reverts
 * ├── the Claim reaches beyond the end: reverts
 * ├── the signature is not the provider's, or of another lease, index or tip: reverts
 * ├── k is not of the Claim, or is accepted; the Claim has no roots: reverts
 * ├── the caller's free balance does not cover the bond: reverts
 * └── else: Challenged at the accepted tip, the arbiter is asked about the signed root
 *     ├── nothing pending: the bond is for what is signed
 *     ├── the pending claim begins as the signed one, is another, or is longer: it waits; the bond is for the longer one
 *     ├── the pending claim's window has passed: that is accepted first
 *     ├── Closing: noted; the provider's late time is not forgiven
 *     ├── the provider is a contract wallet: likewise
 *     ├── the arbiter calls back at once: sees the lease Challenged
 *     ├── verdict true: all as before, what was pending is pending, the window restarts
 *     └── verdict false, or silence: Closed, what was pending is void
 */
contract ChallengeSignedTest is LeaseTest {
    function test_RevertWhen_Unknown() external {
        terms.nums ^= 1;
        lease = _id(terms);
        _expectWrongPhase(lease, 0);
        _challengeSigned(0, 0, _roots(1, 1), 1);
    }

    function test_RevertWhen_Closed() external {
        _end(terms, provider);
        _closeAfterWindow(terms);
        _expectWrongPhase(lease, CLOSED);
        _challengeSigned(0, 0, _roots(1, 1), 1);
    }

    function test_RevertWhen_Challenged() external {
        _challengeSigned(0, 0, _roots(1, 1), 1);
        _expectWrongPhase(lease, CHALLENGED);
        _challengeSigned(0, 0, _roots(1, 1), 1);
    }

    function test_Closing_RevertWhen_TooLate() external {
        _end(terms, provider);
        uint256 over = START_TIME + WINDOW;
        vm.warp(over);
        vm.expectRevert(abi.encodeWithSelector(IEscrow.Escrow_TooLate.selector, over, over - 1));
        _challengeSigned(0, 0, _roots(1, 1), 1);
        vm.warp(over - 1);
        _challengeSigned(0, 0, _roots(1, 1), 1);
        _assertState(lease, CHALLENGED | FROM_CLOSING, 0, 0, 0, _tip(0));
    }

    /// The window of a claim that came after the end.
    function test_Closing_RevertWhen_TooLateForTheLastClaim() external {
        _end(terms, provider);
        vm.warp(START_TIME + 100);
        _claim(terms, 1, 1);
        vm.warp(START_TIME + 100 + WINDOW);
        vm.expectRevert(
            abi.encodeWithSelector(
                IEscrow.Escrow_TooLate.selector, START_TIME + 100 + WINDOW, START_TIME + 100 + WINDOW - 1
            )
        );
        _challengeSigned(1, 1, _roots(2, 2), 2);
        vm.warp(START_TIME + 100 + WINDOW - 1);
        _challengeSigned(0, 1, _roots(1, 2), 2);
    }

    function test_RevertWhen_RulesDiffer() external {
        bytes memory signature = _signedClaim(terms, 1, _tip(1));
        Rules memory other = rules;
        other.arbiterFee = 0;
        vm.expectRevert(
            abi.encodeWithSelector(
                IEscrow.Escrow_RulesMismatch.selector, escrow.hashRules(rules), escrow.hashRules(other)
            )
        );
        escrow.challengeSigned(terms, other, _tip(0), new bytes32[](0), _roots(1, 1), 1, 0, signature);
    }

    function test_RevertWhen_GroundUnknown() external {
        bytes memory signature = _signedClaim(terms, 1, _tip(1));
        _expectBadIndex(2, 0, 1);
        escrow.challengeSigned(terms, rules, _tip(0), new bytes32[](0), _roots(1, 1), 1, 2, signature);
    }

    function test_RevertWhen_PendingDiffers() external {
        _redeem(terms, 1);
        _claim(terms, 2, 3);
        for (uint256 last = 2; last <= 4; last += 2) {
            _expectBadIndex(last - 1, 2, 2);
            _challengeSigned(1, last, _roots(2, 4), 2);
        }
        bytes32[] memory others = _roots(12, 13);
        bytes memory signature = _signedClaim(terms, 4, _tip(4));
        vm.expectRevert(
            abi.encodeWithSelector(IEscrow.Escrow_TipMismatch.selector, _tip(3), _extended(_tip(1), others))
        );
        escrow.challengeSigned(terms, rules, _tip(1), others, _roots(2, 4), 2, 0, signature);
    }

    /// With nothing pending, the tip that the Claim follows on must be the accepted one all the same.
    function test_RevertWhen_AcceptedTipDiffers() external {
        bytes20 other = bytes20(keccak256("another past"));
        bytes memory signature = _signedClaim(terms, 1, _extended(other, _roots(1, 1)));
        vm.expectRevert(abi.encodeWithSelector(IEscrow.Escrow_TipMismatch.selector, _tip(0), other));
        escrow.challengeSigned(terms, rules, other, new bytes32[](0), _roots(1, 1), 1, 0, signature);
    }

    function test_RevertWhen_BeyondEnd() external {
        _redeem(terms, 1);
        _expectBadIndex(CHECKPOINTS + 1, 2, CHECKPOINTS);
        _challengeSigned(1, 1, _roots(2, CHECKPOINTS + 1), 2);
    }

    function test_RevertWhen_SignatureBad() external {
        Terms memory other = terms;
        other.nums ^= 1;
        bytes[5] memory bad;
        bad[0] = _sign(stranger, escrow.hashClaim(lease, 2, _tip(2)));
        bad[1] = _signedClaim(terms, 3, _tip(2));
        bad[2] = _signedClaim(terms, 2, _tip(3));
        bad[3] = _signedClaim(other, 2, _tip(2));
        for (uint256 i; i < bad.length; ++i) {
            vm.expectRevert(abi.encodeWithSelector(IEscrow.Escrow_BadSignature.selector, provider));
            vm.prank(challenger);
            escrow.challengeSigned(terms, rules, _tip(0), new bytes32[](0), _roots(1, 2), 1, 0, bad[i]);
        }
    }

    function test_RevertWhen_KNotOfTheClaim() external {
        _redeem(terms, 2);
        for (uint16 k = 2; k <= 5; k += 3) {
            _expectBadIndex(k, 3, 4);
            _challengeSigned(2, 2, _roots(3, 4), k);
        }
        _expectBadIndex(0, 3, 4);
        _challengeSigned(2, 2, _roots(3, 4), 0);
    }

    function test_RevertWhen_NoRoots() external {
        _redeem(terms, 2);
        _expectBadIndex(2, 3, 2);
        _challengeSigned(2, 2, new bytes32[](0), 2);
        // A pending root is no root of the Claim.
        _claim(terms, 3, 3);
        _expectBadIndex(3, 3, 2);
        _challengeSigned(2, 3, new bytes32[](0), 3);
    }

    function test_RevertWhen_BondShort() external {
        uint256 bond = ARBITER_FEE + 2 * PRICE;
        _withdraw(challenger, FUNDS - bond + 1);
        vm.expectRevert(abi.encodeWithSelector(IEscrow.Escrow_BalanceShort.selector, challenger, bond - 1, bond));
        _challengeSigned(0, 0, _roots(1, 2), 1);
        _assertState(lease, ACTIVE, 0, 0, 0, _tip(0));
    }

    function test_NothingPending() external {
        _redeem(terms, 1);
        vm.warp(START_TIME + 60);
        uint256 bond = ARBITER_FEE + 3 * PRICE;
        bytes32 id = keccak256(abi.encode(block.chainid, address(escrow), 1, lease, _tip(4), 3, 0));
        bytes memory signature = _signedClaim(terms, 4, _tip(4));
        vm.expectEmit(address(escrow));
        emit IEscrow.Challenged(
            lease, id, challenger, 3, _tip(1), _root(3), 0, _tip(4), bond, address(arbiter), ARBITER_FEE
        );
        vm.prank(challenger);
        escrow.challengeSigned(terms, rules, _tip(1), new bytes32[](0), _roots(2, 4), 3, 0, signature);

        _assertState(lease, CHALLENGED, 1, 1, 1, _tip(1));
        _assertTime(lease, START_TIME + 60);
        assertEq(_free(challenger), FUNDS - bond, "challenger");
        assertEq(_active(provider), 1, "active");
        (bytes32 gotId, address who, uint96 gotBond, bytes20 claimedTip) = escrow.dispute(lease);
        assertEq(gotId, id, "id");
        assertEq(who, challenger, "who");
        assertEq(gotBond, bond, "bond");
        assertEq(bytes32(claimedTip), bytes32(_tip(1)), "nothing is pending");
        Question memory asked = arbiter.last();
        assertEq(asked.id, id, "asked");
        assertEq(asked.lease, lease, "lease");
        assertEq(asked.k, 3, "k");
        assertEq(asked.before, bytes32(_tip(2)), "before");
        assertEq(asked.claimed, _root(3), "root");
        assertEq(asked.challenger, challenger, "challenger");
    }

    function test_PendingOfTheSameChain() external {
        _claim(terms, 1, 2);
        _challengeSigned(0, 2, _roots(1, 4), 4);
        _assertBond(4);
        _assertState(lease, CHALLENGED, 0, 0, 2, _tip(0));
        _assertRestored(2, _tip(2));
        // The pending claim can be challenged as if nothing had been.
        _challenge(terms, 0, 2, 2);
    }

    function test_PendingOfAnotherChain() external {
        bytes32[] memory others = _roots(11, 12);
        _claim(terms, 1, 2);
        _challengeSigned(0, 2, others, 1);
        _assertBond(2);
        assertEq(arbiter.last().claimed, _root(11), "the signed root is asked about");
        _assertRestored(2, _tip(2));
        _challenge(terms, 0, 2, 1);
        assertEq(arbiter.last().claimed, _root(1), "the pending root is asked about");
    }

    function test_PendingIsLonger() external {
        _claim(terms, 1, 3);
        _challengeSigned(0, 3, _roots(1, 1), 1);
        _assertBond(3);
        _assertRestored(3, _tip(3));
    }

    /// The signed Claim and the pending one are one and the same.
    function test_PendingIsTheSignedOne() external {
        _claim(terms, 1, 2);
        _challengeSigned(0, 2, _roots(1, 2), 2);
        _assertBond(2);
        _assertRestored(2, _tip(2));
    }

    function test_PendingOutlivedItsWindow() external {
        _claim(terms, 1, 2);
        vm.warp(START_TIME + WINDOW);
        _expectBadIndex(2, 0, 0);
        _challengeSigned(0, 2, _roots(1, 3), 3);
        _challengeSigned(2, 2, _roots(3, 3), 3);
        _assertBond(1);
        _assertState(lease, CHALLENGED, 0, 2, 2, _tip(2));
        escrow.collect(terms);
        _assertPaidSoFar(2);
        _resolve(terms, 2);
        _assertState(lease, CLOSED, 2, 2, 2, _tip(2));
        assertEq(_free(provider), FUNDS - STAKE + 2 * PRICE, "what was accepted is paid once");
    }

    function test_Closing() external {
        vm.warp(START_TIME + TIMEOUT);
        _end(terms, stranger);
        vm.warp(block.timestamp + 50);
        _challengeSigned(0, 0, _roots(1, 2), 2);
        _assertState(lease, CHALLENGED | FROM_CLOSING | LATE, 0, 0, 0, _tip(0));
        assertEq(_active(provider), 0, "active");
        vm.warp(block.timestamp + 50);
        _resolve(terms, 1);
        _assertState(lease, CLOSING | LATE, 0, 0, 0, _tip(0));
        _assertTime(lease, START_TIME + TIMEOUT + 100);
        uint256 free = _free(provider);
        _closeAfterWindow(terms);
        assertEq(_free(provider), free + STAKE - PRICE, "late all the same");
        assertEq(_active(provider), 0, "active");
    }

    function test_ContractWallet() external {
        Wallet wallet = _wallet("owner");
        provider = address(wallet);
        _useAnotherClient();
        _useLease(_opened());
        wallet.setMood(Wallet.Mood.SaysNo);
        vm.expectRevert(abi.encodeWithSelector(IEscrow.Escrow_BadSignature.selector, provider));
        _challengeSigned(0, 0, _roots(1, 1), 1);
        wallet.setMood(Wallet.Mood.Good);
        _challengeSigned(0, 0, _roots(1, 1), 1);
        _resolve(terms, 2);
        assertEq(_free(provider), FUNDS - STAKE, "convicted");
    }

    function test_ArbiterCallsBack() external {
        HastyArbiter hasty = new HastyArbiter(escrow);
        rules.arbiter = address(hasty);
        _useLease(_open(_match(_bid(1), _ask())));
        hasty.prepare(terms, rules, 1);
        _challengeSigned(0, 0, _roots(1, 1), 1);
        _assertState(lease, ACTIVE, 0, 0, 0, _tip(0));
        assertEq(_free(challenger), FUNDS - ARBITER_FEE - PRICE, "challenger");
    }

    function test_True_PaysTheProvider() external {
        _claim(terms, 1, 1);
        uint256 free = _free(provider);
        _challengeSigned(0, 1, _roots(1, 3), 3);
        _resolve(terms, 1);
        assertEq(_free(provider), free + 3 * PRICE, "the bond's rest");
        assertEq(_free(address(arbiter)), ARBITER_FEE, "arbiter");
        // Of no use a second time, but against the same risk.
        _challengeSigned(0, 1, _roots(1, 3), 3);
    }

    function test_False() external {
        _claim(terms, 1, 2);
        _challengeSigned(0, 2, _roots(11, 11), 1);
        _resolve(terms, 2);
        _assertState(lease, CLOSED, 0, 0, 0, _tip(0));
        uint256 reward = (STAKE - ARBITER_FEE) / 5;
        assertEq(_free(challenger), FUNDS + reward, "challenger");
        assertEq(_free(client), FUNDS + STAKE - ARBITER_FEE - reward, "client");
        assertEq(_free(provider), FUNDS - STAKE, "provider");
        assertEq(_active(provider), 0, "active");
        (bytes32 id,,,) = escrow.dispute(lease);
        assertEq(id, 0, "no dispute is left");
    }

    function test_Silent() external {
        _claim(terms, 1, 2);
        _challengeSigned(0, 2, _roots(11, 11), 1);
        _resolve(terms, 0);
        _assertState(lease, CLOSED, 0, 0, 0, _tip(0));
        assertEq(_free(challenger), FUNDS - 2 * PRICE, "challenger");
        assertEq(_free(provider), FUNDS + 2 * PRICE, "provider");
        assertEq(_free(client), FUNDS, "client");
    }

    /// A dispute over a pending claim knows nothing of a signed one before it.
    function test_DisputesDoNotMix() external {
        _claim(terms, 1, 2);
        _challengeSigned(0, 2, _roots(11, 11), 1);
        _resolve(terms, 1);
        _challenge(terms, 0, 2, 1);
        bytes32 expected = keccak256(abi.encode(block.chainid, address(escrow), 2, lease, _tip(2), 1, 0));
        assertEq(_dispute(terms), expected, "id");
    }

    /// @dev Disputes root k of the Claim of `roots` behind `accepted`; up to `claimed` is pending.
    function _challengeSigned(uint256 accepted, uint256 claimed, bytes32[] memory roots, uint16 k) private {
        bytes20 tip = _extended(_tip(accepted), roots);
        bytes memory signature = _signedClaim(terms, uint16(accepted + roots.length), tip);
        vm.prank(challenger);
        escrow.challengeSigned(
            terms, rules, _tip(accepted), _roots(accepted + 1, claimed), roots, k, 0, signature
        );
    }

    function _assertBond(uint256 count) private view {
        (,, uint96 bond,) = escrow.dispute(lease);
        assertEq(bond, ARBITER_FEE + count * PRICE, "bond");
    }

    /// @dev The verdict is true, and all is as it was before.
    function _assertRestored(uint256 claimed, bytes20 tip) private {
        vm.warp(START_TIME + 5 hours);
        _resolve(terms, 1);
        _assertState(lease, ACTIVE, 0, 0, claimed, tip);
        _assertTime(lease, START_TIME + 5 hours);
        assertEq(_active(provider), 1, "active");
        vm.warp(START_TIME + 5 hours + WINDOW - 1);
    }
}
