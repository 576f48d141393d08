// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.28;

import {IEscrow, Terms} from "../../src/interfaces/IEscrow.sol";
import {LeaseTest} from "../utils/LeaseTest.sol";

/* end
 * ├── the lease is unknown: reverts
 * ├── Active
 * │   ├── by the provider: Closing
 * │   ├── by the client: Closing, noted
 * │   ├── by anyone else
 * │   │   ├── before the timeout: reverts
 * │   │   ├── while a claim is pending: reverts, and says when the later of window and timeout has passed
 * │   │   └── else: Closing, late
 * │   ├── late, whoever calls
 * │   └── not late while a claim is pending, nor by a provider within its time
 * ├── Closing, Challenged
 * │   ├── by the client: noted, the clock goes on, and nothing follows the lease
 * │   ├── by the client again: reverts
 * │   └── by anyone else: reverts
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

    function test_Unknown_RevertWhen_ByClient() external {
        Terms memory other = terms;
        other.nums ^= 1;
        _expectWrongPhase(_id(other), 0);
        _end(other, client);
    }

    function test_Closing_RevertWhen_ByAnyoneElse() external {
        _end(terms, provider);
        _expectWrongPhase(lease, CLOSING);
        _end(terms, provider);
        vm.warp(START_TIME + TIMEOUT);
        _expectWrongPhase(lease, CLOSING);
        _end(terms, stranger);
    }

    function test_Closing_ByClient() external {
        _end(terms, provider);
        vm.warp(START_TIME + WINDOW - 1);
        vm.expectEmit(address(escrow));
        emit IEscrow.Ended(lease, client, CLOSING | BY_CLIENT);
        _end(terms, client);
        _assertState(lease, CLOSING | BY_CLIENT, 0, 0, 0, bytes20(JOB));
        _assertTime(lease, START_TIME);
        assertEq(_active(provider), 0, "active, once less");
        _expectWrongPhase(lease, CLOSING | BY_CLIENT);
        _end(terms, client);
        vm.warp(START_TIME + WINDOW);
        escrow.close(terms);
        _assertGone(lease);
        _assertPaid(0, 0);
    }

    function test_Closing_ByClient_Late() external {
        vm.warp(START_TIME + TIMEOUT);
        _end(terms, stranger);
        _end(terms, client);
        _assertState(lease, CLOSING | LATE | BY_CLIENT, 0, 0, 0, bytes20(JOB));
        _closeAfterWindow(terms);
        _assertPaid(0, PRICE);
    }

    /// What a passed window accepted is so all the same.
    function test_Closing_ByClient_AfterTheWindow() external {
        vm.warp(START_TIME + TIMEOUT);
        _end(terms, stranger);
        _claim(terms, 1, 1);
        vm.warp(START_TIME + TIMEOUT + WINDOW);
        _end(terms, client);
        _assertState(lease, CLOSING | BY_CLIENT | CLAIMED_IN_CLOSING, 0, 1, 1, _tip(1));
        escrow.close(terms);
        _assertGone(lease);
        _assertPaid(1, 0);
    }

    function test_Challenged_RevertWhen_ByAnyoneElse() external {
        _claim(terms, 1, 1);
        _challenge(terms, 0, 1, 1);
        vm.warp(START_TIME + TIMEOUT);
        _expectWrongPhase(lease, CHALLENGED);
        _end(terms, provider);
        _expectWrongPhase(lease, CHALLENGED);
        _end(terms, stranger);
    }

    function test_Challenged_ByClient() external {
        _claim(terms, 1, 1);
        _challenge(terms, 0, 1, 1);
        vm.warp(START_TIME + 10);
        vm.expectEmit(address(escrow));
        emit IEscrow.Ended(lease, client, CHALLENGED | BY_CLIENT);
        _end(terms, client);
        _assertState(lease, CHALLENGED | BY_CLIENT, 0, 0, 1, bytes20(JOB));
        _assertTime(lease, START_TIME);
        assertEq(_active(provider), 1, "active");
        _expectWrongPhase(lease, CHALLENGED | BY_CLIENT);
        _end(terms, client);
        _resolve(terms, 2);
        _assertGone(lease);
    }

    /// The lease goes on, and the client still ends it, if the provider does not; nothing follows it.
    function test_Challenged_ByClient_VerdictTrue() external {
        _claim(terms, 1, 1);
        _challenge(terms, 0, 1, 1);
        _end(terms, client);
        _resolve(terms, 1);
        _assertState(lease, ACTIVE | BY_CLIENT, 0, 0, 1, _tip(1));
        _end(terms, provider);
        _assertState(lease, CLOSING | BY_CLIENT, 0, 0, 1, _tip(1));
        assertEq(_active(provider), 0, "active");
        _expectWrongPhase(lease, CLOSING | BY_CLIENT);
        _end(terms, client);
        _closeAfterWindow(terms);
        _assertGone(lease);
    }

    function test_Challenged_ByClient_VerdictTrueAndComplete() external {
        _useAnotherClient();
        _useLease(_openedFor(2));
        _claim(terms, 1, 1);
        _challenge(terms, 0, 1, 1);
        _end(terms, client);
        _resolve(terms, 1);
        _end(terms, client);
        _assertState(lease, CLOSING | BY_CLIENT | MORE, 0, 0, 1, _tip(1));
        _redeem(terms, 2);
        _assertGone(lease);
    }

    function test_Challenged_ByClient_Silent() external {
        _end(terms, provider);
        _claim(terms, 1, 1);
        _challenge(terms, 0, 1, 1);
        _end(terms, client);
        _assertState(lease, CHALLENGED | FROM_CLOSING | BY_CLIENT | CLAIMED_IN_CLOSING, 0, 0, 1, bytes20(JOB));
        _resolve(terms, 0);
        _assertGone(lease);
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
