// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.28;

import {IEscrow, Match, Terms} from "../../src/interfaces/IEscrow.sol";
import {LeaseTest} from "../utils/LeaseTest.sol";

/* close
 * ├── the lease is unknown, Active, Closed or Challenged: reverts
 * ├── the window has not passed since the end, or the claim after it: reverts
 * └── else
 *     ├── nothing done, not late: all goes back, Closed
 *     ├── something accepted and unpaid: paid first
 *     ├── a claim was pending: accepted now, late is forgiven
 *     ├── all is accepted: completes, even if late
 *     ├── late and no progress: min(askPrice, stake) of the stake goes to the client
 *     │   └── client and matcher made the price as high as they liked: as little all the same
 *     └── the client ended it: the slot is freed
 */
contract CloseTest is LeaseTest {
    function test_RevertWhen_Unknown() external {
        Terms memory other = terms;
        other.parties.feeTo = stranger;
        _expectWrongPhase(_id(other), 0);
        escrow.close(other);
    }

    function test_RevertWhen_Active() external {
        vm.warp(START_TIME + 10 days);
        _expectWrongPhase(lease, ACTIVE);
        escrow.close(terms);
    }

    function test_RevertWhen_Closed() external {
        _end(terms, provider);
        _closeAfterWindow(terms);
        _expectWrongPhase(lease, CLOSED);
        escrow.close(terms);
    }

    function test_RevertWhen_Challenged() external {
        _end(terms, provider);
        _claim(terms, 1, 1);
        _challenge(terms, 0, 1, 1);
        vm.warp(START_TIME + 10 days);
        _expectWrongPhase(lease, CHALLENGED | FROM_CLOSING | CLAIMED_IN_CLOSING);
        escrow.close(terms);
    }

    function test_RevertWhen_TooEarly() external {
        _end(terms, provider);
        vm.warp(START_TIME + 100);
        _claim(terms, 1, 1);
        uint256 from = START_TIME + 100 + WINDOW;
        vm.warp(from - 1);
        vm.expectRevert(abi.encodeWithSelector(IEscrow.Escrow_TooEarly.selector, from - 1, from));
        escrow.close(terms);
    }

    function test_NothingDone() external {
        _end(terms, provider);
        vm.warp(START_TIME + WINDOW);
        vm.expectEmit(address(escrow));
        emit IEscrow.Closed(lease, 0, 0, true);
        escrow.close(terms);
        _assertState(lease, CLOSED, 0, 0, 0, bytes20(JOB));
        _assertPaid(0, 0);
    }

    function test_PaysFirst() external {
        _claim(terms, 1, 2);
        vm.warp(START_TIME + WINDOW);
        _end(terms, provider);
        _closeAfterWindow(terms);
        _assertState(lease, CLOSED, 2, 2, 2, _tip(2));
        _assertPaid(2, 0);
    }

    function test_PendingClaim() external {
        vm.warp(START_TIME + TIMEOUT);
        _end(terms, stranger);
        _claim(terms, 1, 1);
        _closeAfterWindow(terms);
        _assertState(lease, CLOSED, 1, 1, 1, _tip(1));
        _assertPaid(1, 0);
    }

    function test_ClaimPendingAtTheEnd() external {
        _claim(terms, 1, 3);
        _end(terms, provider);
        _closeAfterWindow(terms);
        _assertPaid(3, 0);
    }

    function test_AllAcceptedThoughLate() external {
        _claim(terms, 1, CHECKPOINTS);
        vm.warp(START_TIME + TIMEOUT);
        _end(terms, stranger);
        _assertState(lease, CLOSING | LATE, 0, CHECKPOINTS, CHECKPOINTS, _tip(CHECKPOINTS));
        vm.warp(block.timestamp + WINDOW);
        vm.expectEmit(address(escrow));
        emit IEscrow.Settled(lease, CHECKPOINTS);
        escrow.close(terms);
        _assertGone(lease);
        _assertPaid(CHECKPOINTS, 0);
    }

    function test_Late() external {
        _redeem(terms, 1);
        vm.warp(START_TIME + TIMEOUT);
        _end(terms, provider);
        vm.warp(START_TIME + TIMEOUT + WINDOW);
        vm.expectEmit(address(escrow));
        emit IEscrow.Closed(lease, 1, PRICE, true);
        escrow.close(terms);
        _assertPaid(1, PRICE);
    }

    function test_LateAtAPriceThatTheProviderDidNotName() external {
        _useAnotherClient();
        Match memory item = _match(_bid(), _ask());
        item.price = 50e6;
        (item.bid.maxPrice, item.bid.checkpoints) = (50e6 + FEE, 1);
        _resign(item);
        _useLease(_open(item));
        assertEq(terms.askPrice, PRICE, "what the Ask wants");
        vm.warp(START_TIME + TIMEOUT);
        _end(terms, client);
        _closeAfterWindow(terms);
        assertEq(_free(client), FUNDS + PRICE, "not the whole stake");
        assertEq(_free(provider), FUNDS - STAKE - PRICE, "provider");
    }

    function test_LateWithASmallStake() external {
        _useAnotherClient();
        Match memory item = _match(_bid(), _ask());
        rules.arbiterFee = PRICE - 1;
        item.bid.rules = item.ask.rules = escrow.hashRules(rules);
        item.bid.stake = PRICE - 1;
        _resign(item);
        terms = _open(item);
        vm.warp(START_TIME + TIMEOUT);
        _end(terms, provider);
        _closeAfterWindow(terms);
        assertEq(_free(client), FUNDS + PRICE - 1, "the whole stake");
        assertEq(_free(provider), FUNDS - STAKE - (PRICE - 1), "provider");
    }

    function test_ByClient() external {
        _end(terms, client);
        vm.warp(START_TIME + WINDOW);
        vm.expectEmit(address(escrow));
        emit IEscrow.Closed(lease, 0, 0, false);
        escrow.close(terms);
        _assertGone(lease);
        _assertPaid(0, 0);
    }
}
