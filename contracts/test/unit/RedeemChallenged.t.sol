// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.28;

import {IEscrow, Reason, Redemption, Rules, Terms} from "../../src/interfaces/IEscrow.sol";
import {DisputeTest} from "../utils/LeaseTest.sol";

/* redeemChallenged
 * ├── the lease is unknown, live or Closed: reverts
 * ├── n is accepted already, or beyond the end: reverts
 * ├── the signature is not the approver's, or of another lease, index or tip: reverts
 * ├── n is below what is claimed
 * │   ├── the pending roots are not all of them, or others: reverts
 * │   └── its tip is not of their chain: reverts
 * ├── n is below k: pays; the dispute goes on, under its id, and so does its clock
 * │   ├── verdict true: what is beyond n is pending again
 * │   ├── verdict false, or silence: Closed at n
 * │   └── the disputed Claim was signed, n is beyond all that is pending: nothing is pending any more
 * ├── n is k or above: pays, the dispute is withdrawn: fee to the arbiter, rest of the bond to the challenger
 * │   ├── the rules are not the lease's: reverts
 * │   ├── the arbiter has spoken, but nobody has applied it: likewise
 * │   ├── below what is claimed: the rest is pending, its window restarts, and it can be challenged
 * │   ├── at what is claimed or above: whatever its tip is, nothing is pending
 * │   └── the end: completes
 * ├── from Closing: late is forgiven; Closing again
 * ├── `last` means nothing
 * └── the same again: reverts
 */
contract RedeemChallengedTest is DisputeTest {
    bytes32[] internal none;

    function test_RevertWhen_NotChallenged() external {
        Redemption memory item = _approval(terms, 3, false);
        _expectWrongPhase(lease, ACTIVE);
        _redeemChallenged(item, none);
        _end(terms, client);
        _expectWrongPhase(lease, CLOSING | BY_CLIENT);
        _redeemChallenged(item, none);
        item.terms.nums ^= 1;
        _expectWrongPhase(_id(item.terms), 0);
        _redeemChallenged(item, none);
    }

    function test_RevertWhen_Closed() external {
        _end(terms, provider);
        _closeAfterWindow(terms);
        _expectWrongPhase(lease, CLOSED);
        _redeemChallenged(_approval(terms, 4, false), none);
    }

    function test_RevertWhen_AcceptedAlready() external {
        _challenge(terms, 1, 3, 3);
        for (uint16 n; n <= 1; ++n) {
            _expectRefused(Reason.IndexTooLow);
            _redeemChallenged(_approval(terms, n, false), _roots(2, 3));
            // Nor to close.
            _expectRefused(Reason.IndexTooLow);
            vm.prank(provider);
            escrow.redeemChallenged(_approval(terms, n, true), rules, _roots(2, 3));
        }
    }

    function test_RevertWhen_BeyondEnd() external {
        _challenge(terms, 1, 3, 3);
        _expectRefused(Reason.IndexTooHigh);
        _redeemChallenged(_approval(terms, CHECKPOINTS + 1, false), none);
    }

    function test_RevertWhen_SignatureBad() external {
        _challenge(terms, 1, 3, 3);
        Redemption memory item = _approval(terms, 3, false);
        Terms memory other = terms;
        other.nums ^= 1;
        bytes[6] memory bad;
        bad[0] = _sign(stranger, escrow.hashApproval(lease, item.approval));
        bad[1] = _sign(client, escrow.hashApproval(lease, item.approval));
        bad[2] = _approval(terms, 4, false).signature;
        bad[3] = _approval(terms, 3, true).signature;
        bad[4] = _approval(other, 3, false).signature;
        for (uint256 i; i < bad.length; ++i) {
            item.signature = bad[i];
            _expectRefused(Reason.ApprovalSignatureInvalid);
            _redeemChallenged(item, none);
        }
    }

    function test_BelowClaimed_RevertWhen_PendingDiffers() external {
        _challenge(terms, 1, 3, 3);
        Redemption memory item = _approval(terms, 2, false);
        for (uint256 last = 1; last <= 4; ++last) {
            if (last == 3) continue;
            _expectBadIndex(last - 1, 2, 2);
            _redeemChallenged(item, _roots(2, last));
        }
        bytes32[] memory others = _roots(2, 3);
        others[1] = _root(13);
        vm.expectRevert(
            abi.encodeWithSelector(IEscrow.Escrow_TipMismatch.selector, _tip(3), _extended(_tip(1), others))
        );
        _redeemChallenged(item, others);
    }

    /// Else nothing could be challenged any more of what stays pending: its past would be another.
    function test_BelowClaimed_RevertWhen_OffTheChain() external {
        for (uint16 k = 2; k <= 3; ++k) {
            _challenge(terms, 1, 3, k);
            Redemption memory item = _approval(terms, 2, false);
            item.approval.tip = bytes20(keccak256("another past"));
            _resign(item);
            vm.expectRevert(
                abi.encodeWithSelector(IEscrow.Escrow_TipMismatch.selector, _tip(2), item.approval.tip)
            );
            _redeemChallenged(item, _roots(2, 3));
            _resolve(terms, 1);
        }
    }

    function test_BelowK() external {
        _challenge(terms, 1, 3, 3);
        bytes32 id = _dispute(terms);
        vm.warp(START_TIME + 100);
        Redemption memory item = _approval(terms, 2, false);
        vm.expectEmit(address(escrow));
        emit IEscrow.Approved(lease, 2, _tip(2));
        _redeemChallenged(item, _roots(2, 3));
        _assertState(lease, CHALLENGED, 2, 2, 3, _tip(2));
        _assertTime(lease, START_TIME);
        _assertPaidSoFar(2);
        _assertDispute(id, challenger, BOND, _tip(3));
        assertEq(_active(provider), 1, "active");

        _expectRefused(Reason.IndexTooLow);
        _redeemChallenged(item, _roots(2, 3));
    }

    function test_BelowK_True() external {
        _acceptBelowK();
        _resolve(terms, 1);
        _assertState(lease, ACTIVE, 2, 2, 3, _tip(3));
        assertEq(_free(provider), FUNDS - STAKE + 4 * PRICE, "two checkpoints, and the bond's rest");
        _challenge(terms, 2, 3, 3);
        _assertDispute(_disputeId(2, _tip(3), 3, 0), challenger, ARBITER_FEE + PRICE, _tip(3));
    }

    function test_BelowK_False() external {
        _acceptBelowK();
        _resolve(terms, 2);
        _assertState(lease, CLOSED, 2, 2, 2, _tip(2));
        assertEq(_free(provider), FUNDS - STAKE + 2 * PRICE, "provider");
        assertEq(_free(challenger), FUNDS + REWARD, "challenger");
    }

    function test_BelowK_Silent() external {
        _acceptBelowK();
        vm.warp(START_TIME + ARBITER_TIMEOUT - 1);
        vm.expectRevert();
        escrow.resolve(terms, rules);
        vm.warp(START_TIME + ARBITER_TIMEOUT);
        escrow.resolve(terms, rules);
        _assertState(lease, CLOSED, 2, 2, 2, _tip(2));
        assertEq(_free(client), FUNDS - 2 * uint256(PRICE + FEE), "client");
    }

    function test_AtK() external {
        _challenge(terms, 1, 3, 2);
        bytes32 id = _dispute(terms);
        vm.warp(START_TIME + 100);
        Redemption memory item = _approval(terms, 2, false);
        vm.expectEmit(address(escrow));
        emit IEscrow.Resolved(lease, id, 5);
        vm.expectEmit(address(escrow));
        emit IEscrow.Approved(lease, 2, _tip(2));
        _redeemChallenged(item, _roots(2, 3));
        _assertState(lease, ACTIVE, 2, 2, 3, _tip(3));
        _assertTime(lease, START_TIME + 100);
        _assertDispute(0, address(0), 0, 0);
        _assertPaidSoFar(2);
        assertEq(_free(challenger), FUNDS - ARBITER_FEE, "challenger");
        assertEq(_free(address(arbiter)), ARBITER_FEE, "arbiter");
        assertEq(_active(provider), 1, "active");

        // A whole window, in which the rest can be challenged: its past is the accepted one.
        vm.warp(START_TIME + 100 + WINDOW - 1);
        _challenge(terms, 2, 3, 3);
    }

    /// What the approver accepts is accepted, until somebody applies the verdict.
    function test_AtK_TheArbiterHasSpoken() external {
        for (uint8 verdict = 1; verdict <= 4; ++verdict) {
            uint16 k = verdict + 1;
            vm.prank(client);
            escrow.challenge(terms, rules, _tip(k - 1), _roots(k, 3 > k ? 3 : k), k, 0);
            arbiter.rule(_dispute(terms), verdict);
            _redeemChallenged(_approval(terms, k, false), _roots(k, 3 > k ? 3 : k));
            if (k >= 3) _claim(terms, k + 1, k + 1);
        }
        _assertState(lease, ACTIVE, 5, 5, 6, _tip(6));
        assertEq(_free(client), FUNDS - COST - 4 * ARBITER_FEE, "client");
        _assertPaidSoFar(5);
    }

    function test_AtK_RevertWhen_RulesDiffer() external {
        _challenge(terms, 1, 3, 2);
        Rules memory other = rules;
        other.arbiterFee = 0;
        Redemption memory item = _approval(terms, 2, false);
        _expectRulesMismatch(other);
        escrow.redeemChallenged(item, other, _roots(2, 3));
    }

    function test_AtClaimed() external {
        _challenge(terms, 1, 3, 3);
        _redeemChallenged(_approval(terms, 3, false), none);
        _assertState(lease, ACTIVE, 3, 3, 3, _tip(3));
        _assertPaidSoFar(3);
    }

    function test_BeyondClaimed() external {
        _challenge(terms, 1, 3, 2);
        _redeemChallenged(_approval(terms, 5, false), none);
        _assertState(lease, ACTIVE, 5, 5, 5, _tip(5));
        _assertPaidSoFar(5);
        _claim(terms, 6, 6);
    }

    /// What the approver accepts as a whole may be another past than what is claimed.
    function test_AtClaimed_OffTheChain() external {
        _challenge(terms, 1, 3, 3);
        Redemption memory item = _approval(terms, 3, false);
        item.approval.tip = bytes20(keccak256("another past"));
        _resign(item);
        _redeemChallenged(item, none);
        _assertState(lease, ACTIVE, 3, 3, 3, item.approval.tip);
        assertEq(_free(challenger), FUNDS - ARBITER_FEE, "withdrawn");
    }

    function test_Complete() external {
        _challenge(terms, 1, 3, 3);
        bytes32 id = _dispute(terms);
        Redemption memory item = _approval(terms, CHECKPOINTS, false);
        vm.expectEmit(address(escrow));
        emit IEscrow.Resolved(lease, id, 5);
        _redeemChallenged(item, none);
        _assertGone(lease);
        _assertPaid(CHECKPOINTS, 0);
        _assertDispute(0, address(0), 0, 0);
        _expectWrongPhase(lease, 0);
        _redeemChallenged(item, none);
    }

    function test_CompleteAndMore() external {
        _useAnotherClient();
        _useLease(_openedFor(4));
        _claim(terms, 1, 1);
        _challenge(terms, 0, 1, 1);
        _redeemChallenged(_approval(terms, 4, false), none);
        _assertState(lease, CLOSED, 4, 4, 4, _tip(4));
        assertEq(_active(provider), 1, "active, of the other lease");
    }

    function test_CompleteAndEndedByClient() external {
        _useAnotherClient();
        _useLease(_openedFor(4));
        _claim(terms, 1, 1);
        _challenge(terms, 0, 1, 1);
        _end(terms, client);
        _redeemChallenged(_approval(terms, 4, false), none);
        _assertGone(lease);
    }

    function test_FromClosing() external {
        _redeem(terms, 3);
        vm.warp(START_TIME + TIMEOUT);
        _end(terms, stranger);
        _claim(terms, 4, 5);
        _challenge(terms, 3, 5, 5);
        _assertState(lease, CHALLENGED | FROM_CLOSING | LATE | CLAIMED_IN_CLOSING, 3, 3, 5, _tip(3));
        _redeemChallenged(_approval(terms, 4, false), _roots(4, 5));
        _assertState(lease, CHALLENGED | FROM_CLOSING | CLAIMED_IN_CLOSING, 4, 4, 5, _tip(4));
        vm.warp(block.timestamp + 100);
        _redeemChallenged(_approval(terms, 5, false), none);
        _assertState(lease, CLOSING | CLAIMED_IN_CLOSING, 5, 5, 5, _tip(5));
        _assertTime(lease, block.timestamp);
        assertEq(_active(provider), 0, "active");
        _closeAfterWindow(terms);
        _assertPaid(5, 0);
    }

    function test_FromClosing_Complete() external {
        _end(terms, provider);
        _challenge(terms, 1, 3, 3);
        _redeemChallenged(_approval(terms, CHECKPOINTS, false), none);
        _assertGone(lease);
        _assertPaid(CHECKPOINTS, 0);
    }

    function test_LastMeansNothing() external {
        _challenge(terms, 1, 3, 3);
        vm.prank(provider);
        escrow.redeemChallenged(_approvalOf(3, true), rules, none);
        _assertState(lease, ACTIVE, 3, 3, 3, _tip(3));
    }

    function test_Again() external {
        _challenge(terms, 1, 3, 3);
        Redemption memory item = _approval(terms, 3, false);
        _redeemChallenged(item, none);
        _expectWrongPhase(lease, ACTIVE);
        _redeemChallenged(item, none);
        _refused(item, Reason.IndexTooLow);
        _claim(terms, 4, 4);
        _challenge(terms, 3, 4, 4);
        _expectRefused(Reason.IndexTooLow);
        _redeemChallenged(item, _roots(4, 4));
        assertEq(_free(provider), FUNDS - STAKE + 3 * PRICE, "paid once");
    }

    // ---------------------------------------------------------------- of a signed Claim

    /// The client posts an old Claim and disputes it, so that Approvals can't be redeemed: they can.
    function test_Signed_ApprovalOfMore() external {
        _redeem(terms, 3);
        _challengeSigned(3, 3, _roots(4, 4), 4);
        _redeemChallenged(_approval(terms, CHECKPOINTS, false), none);
        _assertGone(lease);
        _assertPaid(CHECKPOINTS, 0);
    }

    function test_Signed_BelowKAndBeyondPending() external {
        _challengeSigned(1, 3, _roots(2, 6), 6);
        bytes32 id = _dispute(terms);
        // Of another chain, even: nothing of the pending one is left.
        Redemption memory item = _approval(terms, 4, false);
        item.approval.tip = bytes20(keccak256("another past"));
        _resign(item);
        _redeemChallenged(item, none);
        _assertState(lease, CHALLENGED, 4, 4, 4, item.approval.tip);
        _assertDispute(id, challenger, ARBITER_FEE + 5 * PRICE, item.approval.tip);
        _resolve(terms, 1);
        _assertState(lease, ACTIVE, 4, 4, 4, item.approval.tip);
    }

    function test_Signed_BelowKAndPending() external {
        _challengeSigned(1, 3, _roots(2, 6), 6);
        bytes32 id = _dispute(terms);
        _redeemChallenged(_approval(terms, 2, false), _roots(2, 3));
        _assertState(lease, CHALLENGED, 2, 2, 3, _tip(2));
        _assertDispute(id, challenger, ARBITER_FEE + 5 * PRICE, _tip(3));
        _resolve(terms, 1);
        _assertState(lease, ACTIVE, 2, 2, 3, _tip(3));
        _challenge(terms, 2, 3, 3);
    }

    function test_Signed_AtKBelowPendingOfAnotherChain() external {
        _challengeSigned(1, 3, _roots(12, 12), 2);
        _redeemChallenged(_approval(terms, 2, false), _roots(2, 3));
        _assertState(lease, ACTIVE, 2, 2, 3, _tip(3));
        assertEq(_free(challenger), FUNDS - ARBITER_FEE, "withdrawn");
        _challenge(terms, 2, 3, 3);
    }

    /// The verdict on a signed Claim stands, whatever was accepted meanwhile below it.
    function test_Signed_BelowK_False() external {
        _challengeSigned(1, 3, _roots(2, 6), 6);
        _redeemChallenged(_approval(terms, 4, false), none);
        _resolve(terms, 2);
        _assertState(lease, CLOSED, 4, 4, 4, _tip(4));
        assertEq(_free(provider), FUNDS - STAKE + 4 * PRICE, "provider");
        assertEq(_free(challenger), FUNDS + REWARD, "challenger");
    }

    function _acceptBelowK() private {
        _challenge(terms, 1, 3, 3);
        _redeemChallenged(_approval(terms, 2, false), _roots(2, 3));
    }

    function _approvalOf(uint16 n, bool last) private view returns (Redemption memory) {
        return _approval(terms, n, last);
    }

    function _challengeSigned(uint256 accepted, uint256 claimed, bytes32[] memory roots, uint16 k) private {
        bytes memory signature =
            _signedClaim(terms, uint16(accepted + roots.length), _extended(_tip(accepted), roots));
        vm.prank(challenger);
        escrow.challengeSigned(
            terms, rules, _tip(accepted), _roots(accepted + 1, claimed), roots, k, 0, signature
        );
    }

    function _expectRefused(Reason reason) private {
        vm.expectRevert(abi.encodeWithSelector(IEscrow.Escrow_Refused.selector, reason));
    }
}
