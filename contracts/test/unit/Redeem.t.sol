// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.28;

import {IEscrow, Match, Reason, Redemption, Terms} from "../../src/interfaces/IEscrow.sol";
import {LeaseTest} from "../utils/LeaseTest.sol";

/* redeem
 * ├── the lease is unknown, Closed or Challenged: LeaseNotLive
 * ├── n is below what is claimed: IndexTooLow
 * ├── n is accepted already
 * │   ├── not last, or not by the provider: IndexTooLow
 * │   └── last, by the provider: closes, the accepted tip stays
 * │       └── a passed window had accepted it: that is paid, and told
 * ├── n is beyond the lease's end: IndexTooHigh
 * ├── the signature is not the approver's, or of another index, tip or last: ApprovalSignatureInvalid
 * ├── the approver is a contract: ApprovalSignatureInvalid
 * ├── Active
 * │   ├── n below the end: pays, replaces a pending claim, the clock restarts
 * │   ├── n at the end, the Bid's last: pays, stake back, slot freed
 * │   ├── n at the end, the Bid goes on: pays, stake back, Closed
 * │   ├── last by the provider: pays, refunds, stake back, Closed
 * │   └── last by anyone else: as if it were not
 * └── Closing
 *     ├── n below the end: pays, late is forgiven, the clock goes on
 *     ├── n at the end: completes
 *     ├── last by the provider: closes at once, without a penalty
 *     └── the client ended it: what closes it frees the slot
 *
 * redeemBatch
 * ├── one item can't be redeemed: skipped with its Reason and an event, the others are paid
 * └── the same item twice: the second is refused
 */
contract RedeemTest is LeaseTest {
    function test_Unknown() external {
        Terms memory other = terms;
        other.nums ^= 1;
        _refused(_approval(other, 1, false), Reason.LeaseNotLive);
    }

    function test_Closed() external {
        _end(terms, provider);
        _closeAfterWindow(terms);
        _refused(_approval(terms, 1, false), Reason.LeaseNotLive);
    }

    function test_Challenged() external {
        _claim(terms, 1, 1);
        _challenge(terms, 0, 1, 1);
        _refused(_approval(terms, 1, false), Reason.LeaseNotLive);
    }

    function test_BelowClaimed() external {
        _claim(terms, 1, 3);
        _refused(_approval(terms, 2, false), Reason.IndexTooLow);
        _redeem(terms, 3);
    }

    function test_AcceptedAlready() external {
        _refused(_approval(terms, 0, false), Reason.IndexTooLow);
        _redeem(terms, 2);
        _refused(_approval(terms, 2, false), Reason.IndexTooLow);
        _refused(_approval(terms, 2, true), Reason.IndexTooLow); // by a stranger
        _refused(_approval(terms, 1, true), Reason.IndexTooLow);
    }

    function test_AcceptedAlready_Last() external {
        _redeem(terms, 2);
        Redemption memory item = _approval(terms, 2, true);
        item.approval.tip = bytes20(keccak256("another past"));
        _resign(item);
        vm.expectEmit(address(escrow));
        emit IEscrow.Closed(lease, 2, 0, true);
        _redeemByProvider(item);
        _assertState(lease, CLOSED, 2, 2, 2, _tip(2));
        _assertPaid(2, 0);
    }

    function test_NothingDone_Last() external {
        _redeemLast(terms, 0);
        _assertState(lease, CLOSED, 0, 0, 0, bytes20(JOB));
        _assertPaid(0, 0);
    }

    function test_AfterAPassedWindow_Last() external {
        _claim(terms, 1, 3);
        vm.warp(START_TIME + WINDOW);
        Redemption memory item = _approvalOf(3, true);
        vm.expectEmit(address(escrow));
        emit IEscrow.Settled(lease, 3);
        vm.expectEmit(address(escrow));
        emit IEscrow.Closed(lease, 3, 0, true);
        _redeemByProvider(item);
        _assertState(lease, CLOSED, 3, 3, 3, _tip(3));
        _assertPaid(3, 0);
    }

    function test_AfterAPassedWindow_LastCompletes() external {
        _claim(terms, 1, CHECKPOINTS);
        vm.warp(START_TIME + WINDOW);
        Redemption memory item = _approvalOf(CHECKPOINTS, true);
        vm.expectEmit(address(escrow));
        emit IEscrow.Settled(lease, CHECKPOINTS);
        _redeemByProvider(item);
        _assertGone(lease);
        _assertPaid(CHECKPOINTS, 0);
    }

    function test_BeyondEnd() external {
        _refused(_approval(terms, CHECKPOINTS + 1, false), Reason.IndexTooHigh);
        _refused(_approval(terms, type(uint16).max, false), Reason.IndexTooHigh);
    }

    function test_SignatureBad() external {
        Redemption memory item = _approval(terms, 2, false);
        bytes memory good = item.signature;
        item.signature = _sign(stranger, escrow.hashApproval(lease, item.approval));
        _refused(item, Reason.ApprovalSignatureInvalid);
        item.signature = "";
        _refused(item, Reason.ApprovalSignatureInvalid);
        item.signature = good;
        item.approval.n = 3;
        _refused(item, Reason.ApprovalSignatureInvalid);
        item.approval.n = 2;
        item.approval.tip = _tip(3);
        _refused(item, Reason.ApprovalSignatureInvalid);
        item.approval.tip = _tip(2);
        item.approval.last = true;
        _refused(item, Reason.ApprovalSignatureInvalid);
        item.approval.last = false;
        escrow.redeem(item);
    }

    function test_ApproverIsAContract() external {
        approver = address(_wallet("owner"));
        _useAnotherClient();
        terms = _opened();
        _refused(_approval(terms, 1, false), Reason.ApprovalSignatureInvalid);
    }

    function test_Active() external {
        vm.warp(START_TIME + 30);
        Redemption memory item = _approvalOf(2, false);
        vm.expectEmit(address(escrow));
        emit IEscrow.Approved(lease, 2, _tip(2));
        escrow.redeem(item);
        _assertState(lease, ACTIVE, 2, 2, 2, _tip(2));
        _assertTime(lease, START_TIME + 30);
        _assertPaidSoFar(2);
        assertEq(_active(provider), 1, "active");
        escrow.redeem(_approvalOf(5, false));
        _assertPaidSoFar(5);
    }

    function test_Active_ReplacesAClaim() external {
        // What the approver saw differs from what was claimed on chain: the approver decides.
        bytes32[] memory others = _roots(11, 12);
        _claim(terms, 2, _extended(_tip(0), others), others);
        escrow.redeem(_approvalOf(2, false));
        _assertState(lease, ACTIVE, 2, 2, 2, _tip(2));
    }

    function test_Active_PaysWhatAWindowAccepted() external {
        _claim(terms, 1, 2);
        vm.warp(START_TIME + WINDOW);
        escrow.redeem(_approvalOf(3, false));
        _assertState(lease, ACTIVE, 3, 3, 3, _tip(3));
        _assertPaidSoFar(3);
    }

    function test_Active_Complete() external {
        escrow.redeem(_approvalOf(CHECKPOINTS, false));
        _assertGone(lease);
        _assertPaid(CHECKPOINTS, 0);
    }

    function test_Active_CompleteAndMore() external {
        _redeem(terms, CHECKPOINTS);
        _useAnotherClient();
        _useLease(_openedFor(4));
        vm.expectEmit(address(escrow));
        emit IEscrow.Closed(lease, 4, 0, true);
        escrow.redeem(_approvalOf(4, false));
        _assertState(lease, CLOSED, 4, 4, 4, _tip(4));
        assertEq(_active(provider), 0, "active");
        assertEq(_free(client), FUNDS - 4 * uint256(PRICE + FEE), "client");
        assertEq(_free(provider), FUNDS + (CHECKPOINTS + 4) * PRICE, "provider");
    }

    function test_Active_Last() external {
        _claim(terms, 1, 2);
        _redeemLast(terms, 4);
        _assertState(lease, CLOSED, 4, 4, 4, _tip(4));
        _assertPaid(4, 0);
    }

    function test_Active_LastByAnyoneElse() external {
        escrow.redeem(_approvalOf(4, true));
        _assertState(lease, ACTIVE, 4, 4, 4, _tip(4));
        assertEq(_active(provider), 1, "active");
    }

    function test_Closing() external {
        vm.warp(START_TIME + TIMEOUT);
        _end(terms, stranger);
        _assertState(lease, CLOSING | LATE, 0, 0, 0, bytes20(JOB));
        vm.warp(block.timestamp + 50);
        escrow.redeem(_approvalOf(2, false));
        _assertState(lease, CLOSING, 2, 2, 2, _tip(2));
        _assertTime(lease, START_TIME + TIMEOUT);
        vm.warp(START_TIME + TIMEOUT + WINDOW);
        escrow.close(terms);
        _assertPaid(2, 0);
    }

    function test_Closing_Complete() external {
        vm.warp(START_TIME + TIMEOUT);
        _end(terms, stranger);
        escrow.redeem(_approvalOf(CHECKPOINTS, false));
        _assertGone(lease);
        _assertPaid(CHECKPOINTS, 0);
    }

    function test_Closing_Last() external {
        vm.warp(START_TIME + TIMEOUT);
        _end(terms, stranger);
        _redeemLast(terms, 0);
        _assertState(lease, CLOSED, 0, 0, 0, bytes20(JOB));
        _assertPaid(0, 0);
    }

    function test_Closing_ByClient() external {
        _end(terms, client);
        Redemption memory item = _approvalOf(3, true);
        vm.expectEmit(address(escrow));
        emit IEscrow.Closed(lease, 3, 0, false);
        _redeemByProvider(item);
        _assertGone(lease);
        _assertPaid(3, 0);
    }

    function test_Closing_CompleteAndMoreByClient() external {
        _useAnotherClient();
        _useLease(_openedFor(4));
        _end(terms, client);
        escrow.redeem(_approvalOf(4, false));
        _assertGone(lease);
    }

    function test_NoFee() external {
        _useAnotherClient();
        Match memory item = _match(_bid(), _ask());
        item.bid.fee = 0;
        item.bid.matcher = address(0);
        _resign(item);
        terms = _open(item);
        escrow.redeem(_approvalOf(CHECKPOINTS, false));
        assertEq(_free(address(0)), 0, "nobody");
        assertEq(_free(client), FUNDS - uint256(PRICE) * CHECKPOINTS, "client");
    }

    function test_Batch() external {
        _useAnotherClient();
        Terms memory second = _opened();
        Redemption[] memory items = new Redemption[](4);
        items[0] = _approval(terms, 2, false);
        items[1] = _approval(terms, CHECKPOINTS + 1, false);
        items[2] = items[0];
        items[3] = _approval(second, CHECKPOINTS, false);
        vm.expectEmit(address(escrow));
        emit IEscrow.Skipped(1, Reason.IndexTooHigh);
        vm.expectEmit(address(escrow));
        emit IEscrow.Skipped(2, Reason.IndexTooLow);
        Reason[] memory reasons = escrow.redeemBatch(items);
        assertEq(reasons[0], Reason.Ok, "first");
        assertEq(reasons[1], Reason.IndexTooHigh, "second");
        assertEq(reasons[2], Reason.IndexTooLow, "third");
        assertEq(reasons[3], Reason.Ok, "fourth");
        _assertState(lease, ACTIVE, 2, 2, 2, _tip(2));
        _assertGone(_id(second));
        assertEq(_free(provider), FUNDS - STAKE + (2 + CHECKPOINTS) * PRICE, "provider");
    }

    function _approvalOf(uint16 n, bool last) private view returns (Redemption memory) {
        return _approval(terms, n, last);
    }
}
