// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.28;

import {Approval, Ask, Bid, IEscrow, Redemption, Terms} from "../../src/interfaces/IEscrow.sol";
import {LeaseTest} from "../utils/LeaseTest.sol";

/* claim
 * ├── the lease is unknown, Closed or Challenged: reverts
 * ├── the caller is not the provider: reverts
 * ├── there are no roots, or more than the lease has left: reverts
 * ├── more would be pending than a challenge can carry: reverts
 * ├── the index or tip it leads to is not the one named, because something got in before: reverts
 * ├── Active
 * │   ├── nothing pending: claimed and tip move, the clock restarts
 * │   ├── something pending in its window: extends it, the window restarts
 * │   └── something pending, its window passed: that is accepted first
 * └── Closing
 *     ├── for the first time: as in Active
 *     └── again: reverts
 *
 * claimSigned
 * ├── the lease is not Active: reverts
 * ├── there are no roots, or more than the lease has left: reverts
 * ├── the signature is not the provider's, or of another index or tip: reverts
 * └── else: as claim, by anyone; also for a contract wallet
 */
contract ClaimTest is LeaseTest {
    function test_RevertWhen_Unknown() external {
        Terms memory other = terms;
        other.nums ^= 1;
        _expectWrongPhase(_id(other), 0);
        _claim(other, 1, 1);
    }

    function test_RevertWhen_Closed() external {
        _end(terms, provider);
        _closeAfterWindow(terms);
        _expectWrongPhase(lease, CLOSED);
        _claim(terms, 1, 1);
    }

    function test_RevertWhen_Challenged() external {
        _claim(terms, 1, 1);
        _challenge(terms, 0, 1, 1);
        _expectWrongPhase(lease, CHALLENGED);
        _claim(terms, 2, 2);
    }

    function test_RevertWhen_NotProvider() external {
        vm.expectRevert(abi.encodeWithSelector(IEscrow.Escrow_NotAllowed.selector, stranger));
        vm.prank(stranger);
        escrow.claim(provider, terms.nums, terms.askPrice, _hash(terms.parties), 1, _tip(1), _roots(1, 1));
    }

    function test_RevertWhen_NoRoots() external {
        _expectBadIndex(0, 1, CHECKPOINTS);
        _claim(terms, 1, 0);
    }

    function test_RevertWhen_BeyondEnd() external {
        _claim(terms, 1, 2);
        _expectBadIndex(7, 3, CHECKPOINTS);
        _claim(terms, 3, 7);
    }

    function test_RevertWhen_TooManyPending() external {
        Bid memory bid = _bid(1);
        bid.checkpoints = 2_000;
        Ask memory ask = _ask();
        ask.maxCheckpoints = 2_000;
        _fund(client, 2_000 * (PRICE + FEE));
        terms = _open(_match(bid, ask));
        _redeem(terms, 10);
        _claim(terms, 11, 1_000);
        _expectBadIndex(1_035, 1_001, 1_034);
        _claim(terms, 1_001, 1_035);
        _claim(terms, 1_001, 1_034);
        _expectBadIndex(1_035, 1_035, 1_034);
        _claim(terms, 1_035, 1_035);
        vm.warp(block.timestamp + WINDOW);
        _claim(terms, 1_035, 2_000);
        _assertState(_id(terms), ACTIVE, 10, 1_034, 2_000, _tip(2_000));
    }

    /// Else the provider's honest root 1 would stand as root 2, and convict it.
    function test_RevertWhen_AnApprovalGotInBefore() external {
        _redeem(terms, 1);
        _expectBadIndex(2, 3, 3);
        _claim(terms, 2, _tip(2), _roots(1, 2));
        _claim(terms, 2, 2);
        _assertState(lease, ACTIVE, 1, 1, 2, _tip(2));
    }

    function test_RevertWhen_ASignedClaimGotInBefore() external {
        _claimSigned(1, 2, _signature(provider, 2, _tip(2)));
        _expectBadIndex(2, 4, 4);
        _claim(terms, 1, 2);
        _end(terms, provider);
        _expectBadIndex(2, 4, 4);
        _claim(terms, 1, 2);
        _claim(terms, 3, 3);
        _assertState(lease, CLOSING | CLAIMED_IN_CLOSING, 0, 0, 3, _tip(3));
    }

    /// The approver accepts what was claimed, but under a tip of its own: nothing true can follow that.
    function test_RevertWhen_AnotherPastGotInBefore() external {
        _claim(terms, 1, 1);
        Redemption memory item = _approval(terms, 1, false);
        item.approval.tip = bytes20(keccak256("another past"));
        _resign(item);
        escrow.redeem(item);
        bytes20 led = _extended(item.approval.tip, _roots(2, 2));
        vm.expectRevert(abi.encodeWithSelector(IEscrow.Escrow_TipMismatch.selector, led, _tip(2)));
        _claim(terms, 2, 2);
        // The index alone would not do: here the approver gives index 2 the tip of index 1.
        item.approval = Approval({n: 2, tip: _tip(1), last: false});
        _resign(item);
        escrow.redeem(item);
        _expectBadIndex(2, 3, 3);
        _claim(terms, 2, 2);
    }

    function test_Active() external {
        vm.warp(START_TIME + 10);
        vm.expectEmit(address(escrow));
        emit IEscrow.Claimed(lease, 2, _roots(1, 2));
        _claim(terms, 1, 2);
        _assertState(lease, ACTIVE, 0, 0, 2, _tip(2));
        _assertTime(lease, START_TIME + 10);
        assertEq(_free(provider), FUNDS - STAKE, "nothing is paid");
    }

    function test_Active_Extends() external {
        _claim(terms, 1, 2);
        vm.warp(START_TIME + WINDOW - 1);
        _claim(terms, 3, CHECKPOINTS);
        _assertState(lease, ACTIVE, 0, 0, CHECKPOINTS, _tip(CHECKPOINTS));
        _assertTime(lease, START_TIME + WINDOW - 1);
    }

    function test_Active_AfterWindow() external {
        _claim(terms, 1, 2);
        vm.warp(START_TIME + WINDOW);
        _claim(terms, 3, 3);
        _assertState(lease, ACTIVE, 0, 2, 3, _tip(3));
    }

    function test_Closing() external {
        _end(terms, provider);
        vm.warp(START_TIME + 20);
        _claim(terms, 1, 1);
        _assertState(lease, CLOSING | CLAIMED_IN_CLOSING, 0, 0, 1, _tip(1));
        _assertTime(lease, START_TIME + 20);
    }

    function test_RevertWhen_ClosingAgain() external {
        _end(terms, provider);
        _claim(terms, 1, 1);
        vm.expectRevert(abi.encodeWithSelector(IEscrow.Escrow_AlreadyClaimedInClosing.selector, lease));
        _claim(terms, 2, 2);
    }

    function test_Signed() external {
        vm.expectEmit(address(escrow));
        emit IEscrow.Claimed(lease, 2, _roots(1, 2));
        _claimSigned(1, 2, _signature(provider, 2, _tip(2)));
        _assertState(lease, ACTIVE, 0, 0, 2, _tip(2));
        // The tip signed names the whole past, so it fits whatever of it is on chain already.
        _claimSigned(3, 4, _signature(provider, 4, _tip(4)));
        _assertState(lease, ACTIVE, 0, 0, 4, _tip(4));
    }

    function test_Signed_RevertWhen_Closing() external {
        bytes memory signature = _signature(provider, 1, _tip(1));
        _end(terms, provider);
        _expectWrongPhase(lease, CLOSING);
        _claimSigned(1, 1, signature);
    }

    function test_Signed_RevertWhen_NoRoots() external {
        bytes memory signature = _signature(provider, 0, _tip(0));
        _expectBadIndex(0, 1, CHECKPOINTS);
        _claimSigned(1, 0, signature);
    }

    function test_Signed_RevertWhen_SignatureBad() external {
        bytes[4] memory bad;
        bad[0] = _signature(stranger, 1, _tip(1));
        bad[1] = _signature(provider, 2, _tip(1));
        bad[2] = _signature(provider, 1, _tip(2));
        for (uint256 i; i < bad.length; ++i) {
            vm.expectRevert(abi.encodeWithSelector(IEscrow.Escrow_BadSignature.selector, provider));
            _claimSigned(1, 1, bad[i]);
        }
    }

    function test_Signed_ContractWallet() external {
        provider = address(_wallet("owner"));
        _useAnotherClient();
        _useLease(_opened());
        _claimSigned(1, 1, _signature(provider, 1, _tip(1)));
        _assertState(lease, ACTIVE, 0, 0, 1, _tip(1));
    }

    function _signature(address signer, uint16 n, bytes20 tip) private view returns (bytes memory) {
        return _sign(signer, escrow.hashClaim(lease, n, tip));
    }

    function _claimSigned(uint256 from, uint256 to, bytes memory signature) private {
        bytes32 parties = _hash(terms.parties);
        escrow.claimSigned(terms.provider, terms.nums, terms.askPrice, parties, _roots(from, to), signature);
    }
}
