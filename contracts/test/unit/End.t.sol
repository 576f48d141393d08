// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.28;

import {IEscrow, Terms} from "../../src/interfaces/IEscrow.sol";
import {LeaseTest} from "../utils/LeaseTest.sol";

/* end
 * ├── the lease is unknown, Closing or Challenged: reverts
 * ├── Active
 * │   ├── by the provider: Closing
 * │   ├── by the client: Closing, noted
 * │   ├── by anyone else
 * │   │   ├── before the timeout: reverts
 * │   │   ├── while a claim is pending: reverts, and says when the later of window and timeout has passed
 * │   │   └── else: Closing, late
 * │   ├── late, whoever calls
 * │   └── not late while a claim is pending, nor by a provider within its time
 * └── Closed
 *     ├── by the client: the slot is freed
 *     └── by anyone else: reverts
 */
contract EndTest is LeaseTest {
    function test_RevertWhen_Unknown() external {
        Terms memory other = terms;
        other.provider = client;
        _expectWrongPhase(_id(other), 0);
        _end(other, client);
    }

    function test_RevertWhen_Closing() external {
        _end(terms, provider);
        _expectWrongPhase(lease, CLOSING);
        _end(terms, client);
    }

    function test_RevertWhen_Challenged() external {
        _claim(terms, 1, 1);
        _challenge(terms, 0, 1, 1);
        _expectWrongPhase(lease, CHALLENGED);
        _end(terms, client);
    }

    function test_ByProvider() external {
        vm.warp(START_TIME + TIMEOUT - 1);
        vm.expectEmit(address(escrow));
        emit IEscrow.Ended(lease, provider, CLOSING);
        _end(terms, provider);
        _assertState(lease, CLOSING, 0, 0, 0, bytes20(JOB));
        _assertTime(lease, START_TIME + TIMEOUT - 1);
        assertEq(_active(provider), 0, "active");
        assertEq(_free(provider), FUNDS - STAKE, "the stake stays");
    }

    function test_ByClient() external {
        vm.expectEmit(address(escrow));
        emit IEscrow.Ended(lease, client, CLOSING | BY_CLIENT);
        _end(terms, client);
        _assertState(lease, CLOSING | BY_CLIENT, 0, 0, 0, bytes20(JOB));
    }

    function test_ByAnyone_RevertWhen_BeforeTimeout() external {
        vm.warp(START_TIME + 7);
        _redeem(terms, 1); // restarts the clock
        vm.warp(START_TIME + TIMEOUT + 6);
        vm.expectRevert(
            abi.encodeWithSelector(IEscrow.Escrow_TooEarly.selector, START_TIME + TIMEOUT + 6, START_TIME + TIMEOUT + 7)
        );
        _end(terms, stranger);
    }

    function test_ByAnyone_RevertWhen_Pending() external {
        rules.window = 5 hours;
        _useAnotherClient();
        _useLease(_opened());
        _claim(terms, 1, 1);
        vm.warp(START_TIME + TIMEOUT);
        vm.expectRevert(
            abi.encodeWithSelector(IEscrow.Escrow_TooEarly.selector, START_TIME + TIMEOUT, START_TIME + 5 hours)
        );
        _end(terms, challenger);
        vm.warp(START_TIME + 5 hours);
        _end(terms, challenger);
        _assertState(lease, CLOSING | LATE, 0, 1, 1, _tip(1));
    }

    function test_ByAnyone() external {
        vm.warp(START_TIME + TIMEOUT);
        vm.expectEmit(address(escrow));
        emit IEscrow.Ended(lease, stranger, CLOSING | LATE);
        _end(terms, stranger);
        assertEq(_active(provider), 0, "active");
    }

    function test_LateByProvider() external {
        vm.warp(START_TIME + TIMEOUT);
        _end(terms, provider);
        _assertState(lease, CLOSING | LATE, 0, 0, 0, bytes20(JOB));
    }

    function test_LateByClient() external {
        vm.warp(START_TIME + TIMEOUT);
        _end(terms, client);
        _assertState(lease, CLOSING | LATE | BY_CLIENT, 0, 0, 0, bytes20(JOB));
    }

    function test_NotLateWhilePending() external {
        vm.warp(START_TIME + TIMEOUT);
        _claim(terms, 1, 1);
        vm.warp(START_TIME + TIMEOUT + WINDOW - 1);
        _end(terms, client);
        _assertState(lease, CLOSING | BY_CLIENT, 0, 0, 1, _tip(1));
    }

    function test_Closed_ByClient() external {
        _end(terms, provider);
        _closeAfterWindow(terms);
        vm.expectEmit(address(escrow));
        emit IEscrow.Ended(lease, client, 0);
        _end(terms, client);
        _assertGone(lease);
        assertEq(_free(client), FUNDS, "all was back already");
    }

    function test_Closed_RevertWhen_ByAnyoneElse() external {
        _end(terms, provider);
        _closeAfterWindow(terms);
        vm.expectRevert(abi.encodeWithSelector(IEscrow.Escrow_NotAllowed.selector, provider));
        _end(terms, provider);
    }
}
