// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.28;

import {IEscrow, Terms} from "../../src/interfaces/IEscrow.sol";
import {LeaseTest} from "../utils/LeaseTest.sol";

/* collect
 * ├── the lease is unknown or Closed: reverts
 * ├── nothing is accepted that is not paid: reverts
 * ├── Active, window passed
 * │   ├── below the end: pays, the clock stands
 * │   ├── at the end, the Bid's last: pays, stake back, slot freed
 * │   └── at the end, the Bid goes on: pays, stake back, Closed
 * ├── Closing, window passed: pays, late is forgiven
 * └── Challenged: pays what was accepted before
 */
contract CollectTest is LeaseTest {
    function test_RevertWhen_Unknown() external {
        Terms memory other = terms;
        other.parties.stake += 1;
        _expectWrongPhase(_id(other), 0);
        escrow.collect(other);
    }

    function test_RevertWhen_Closed() external {
        _end(terms, provider);
        _closeAfterWindow(terms);
        _expectWrongPhase(lease, CLOSED);
        escrow.collect(terms);
    }

    function test_RevertWhen_NothingAccepted() external {
        vm.expectRevert(abi.encodeWithSelector(IEscrow.Escrow_NothingPending.selector, lease));
        escrow.collect(terms);
        _claim(terms, 1, 2);
        vm.warp(START_TIME + WINDOW - 1);
        vm.expectRevert(abi.encodeWithSelector(IEscrow.Escrow_NothingPending.selector, lease));
        escrow.collect(terms);
    }

    function test_Active() external {
        _claim(terms, 1, 2);
        vm.warp(START_TIME + WINDOW);
        vm.expectEmit(address(escrow));
        emit IEscrow.Settled(lease, 2);
        escrow.collect(terms);
        _assertState(lease, ACTIVE, 2, 2, 2, _tip(2));
        _assertTime(lease, START_TIME);
        _assertPaidSoFar(2);
    }

    function test_Active_Complete() external {
        _claim(terms, 1, CHECKPOINTS);
        vm.warp(START_TIME + WINDOW);
        vm.expectEmit(address(escrow));
        emit IEscrow.Settled(lease, CHECKPOINTS);
        escrow.collect(terms);
        _assertGone(lease);
        _assertPaid(CHECKPOINTS, 0);
    }

    function test_Active_CompleteAndMore() external {
        _useAnotherClient();
        _useLease(_openedFor(4));
        _claim(terms, 1, 4);
        vm.warp(START_TIME + WINDOW);
        vm.expectEmit(address(escrow));
        emit IEscrow.Closed(lease, 4, 0, true);
        escrow.collect(terms);
        _assertState(lease, CLOSED, 4, 4, 4, _tip(4));
    }

    function test_Closing() external {
        vm.warp(START_TIME + TIMEOUT);
        _end(terms, stranger);
        _claim(terms, 1, 2);
        vm.warp(START_TIME + TIMEOUT + WINDOW);
        escrow.collect(terms);
        _assertState(lease, CLOSING | CLAIMED_IN_CLOSING, 2, 2, 2, _tip(2));
        escrow.close(terms);
        assertEq(_free(provider), FUNDS + 2 * PRICE, "no penalty");
    }

    function test_Challenged() external {
        _claim(terms, 1, 2);
        vm.warp(START_TIME + WINDOW);
        _claim(terms, 3, 4);
        _challenge(terms, 2, 4, 4);
        escrow.collect(terms);
        _assertState(lease, CHALLENGED, 2, 2, 4, _tip(2));
        _assertPaidSoFar(2);
    }
}
