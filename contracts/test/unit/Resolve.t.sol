// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.28;

import {IEscrow, Match, Rules} from "../../src/interfaces/IEscrow.sol";
import {ScriptedArbiter} from "../utils/Arbiters.sol";
import {DisputeTest} from "../utils/LeaseTest.sol";

/* resolve
 * ├── the lease is not Challenged: reverts
 * ├── the rules are not the lease's: reverts
 * ├── too little gas is left for the arbiter: reverts
 * ├── no verdict, the arbiter's time has not passed: reverts
 * ├── verdict true
 * │   ├── from Active: pending again, the window restarts, fee to the arbiter, rest of the bond to the provider
 * │   └── from Closing: likewise, with its notes
 * ├── verdict false
 * │   ├── from Active: Closed, the pending claim is void, stake and bond are given out
 * │   ├── from Closing: likewise, active stays
 * │   ├── the client had ended it: the slot is freed
 * │   ├── what was accepted before is paid
 * │   └── client and challenger are one: gets both parts
 * ├── verdict void
 * │   ├── as if false, but nobody gains: bond back, fee to the arbiter, the rest of the stake is burnt
 * │   ├── from Closing, or what was accepted before: as if false
 * │   └── the stake is just the arbiter's fee: nothing is burnt; there is no fee: all of it
 * ├── verdict unreproducible
 * │   ├── Closed, the pending claim is void, the stake goes back, fee to the arbiter, rest of the bond back
 * │   └── from Closing, or what was accepted before: likewise
 * ├── silence, the arbiter's time has passed: Closed, fee to the challenger, rest of the bond and stake to the provider
 * ├── the arbiter reverts, eats its gas, answers too short, or with anything but 1 to 4: is silent
 * ├── the arbiter answers too long: is heard
 * ├── a verdict after the time: counts
 * └── a second dispute has another id
 */
contract ResolveTest is DisputeTest {
    function test_RevertWhen_NotChallenged() external {
        _expectWrongPhase(lease, ACTIVE);
        escrow.resolve(terms, rules);
    }

    function test_RevertWhen_RulesDiffer() external {
        _challenge(terms, 1, 3, 2);
        Rules memory other = rules;
        other.arbiter = stranger;
        _expectRulesMismatch(other);
        escrow.resolve(terms, other);
    }

    function test_RevertWhen_GasTooLow() external {
        _challenge(terms, 1, 3, 2);
        vm.warp(block.timestamp + ARBITER_TIMEOUT);
        (bool success, bytes memory answer) =
            address(escrow).call{gas: 105_000}(abi.encodeCall(IEscrow.resolve, (terms, rules)));
        assertTrue(!success, "must fail");
        assertEq(bytes32(bytes4(answer)), bytes32(IEscrow.Escrow_GasTooLow.selector), "error");
    }

    /// @dev Whatever gas the caller gives: a verdict that was spoken is applied, or the call fails.
    function testFuzz_StarvedArbiterIsNotSilent(uint256 gas) external {
        gas = bound(gas, 20_000, 400_000);
        _challenge(terms, 1, 3, 2);
        bytes32 id = _dispute(terms);
        arbiter.rule(id, 2);
        vm.warp(block.timestamp + ARBITER_TIMEOUT);
        (bool success,) = address(escrow).call{gas: gas}(abi.encodeCall(IEscrow.resolve, (terms, rules)));
        if (success) assertEq(_free(challenger), FUNDS + REWARD, "the verdict counts");
    }

    function test_RevertWhen_NoVerdict() external {
        _challenge(terms, 1, 3, 2);
        bytes32 id = _dispute(terms);
        vm.warp(START_TIME + ARBITER_TIMEOUT - 1);
        vm.expectRevert(abi.encodeWithSelector(IEscrow.Escrow_NoVerdict.selector, id, START_TIME + ARBITER_TIMEOUT));
        escrow.resolve(terms, rules);
    }

    function test_True() external {
        uint256 free = _free(provider);
        _challenge(terms, 1, 3, 2);
        bytes32 id = _dispute(terms);
        arbiter.rule(id, 1);
        vm.warp(START_TIME + 5 hours);
        vm.expectEmit(address(escrow));
        emit IEscrow.Resolved(lease, id, 1);
        escrow.resolve(terms, rules);
        _assertState(lease, ACTIVE, 1, 1, 3, _tip(3));
        _assertTime(lease, START_TIME + 5 hours);
        _assertDispute(0, address(0), 0, 0);
        assertEq(_free(challenger), FUNDS - BOND, "challenger");
        assertEq(_free(address(arbiter)), ARBITER_FEE, "arbiter");
        assertEq(_free(provider), free + 2 * PRICE, "provider");
        assertEq(_active(provider), 1, "active");

        // The window is a whole one again, and the claim can be challenged again.
        vm.warp(START_TIME + 5 hours + WINDOW - 1);
        _challenge(terms, 1, 3, 3);
    }

    function test_True_FromClosing() external {
        _end(terms, client);
        _challenge(terms, 1, 3, 2);
        _resolve(terms, 1);
        _assertState(lease, CLOSING | BY_CLIENT, 1, 1, 3, _tip(3));
        _closeAfterWindow(terms);
        _assertGone(lease);
        assertEq(_free(provider), FUNDS + 3 * PRICE + 2 * PRICE, "paid for 3, and the bond's rest");
    }

    function test_True_LateIsForgivenByTheWindowOnly() external {
        _redeem(terms, 3);
        vm.warp(START_TIME + TIMEOUT);
        _end(terms, stranger);
        _claim(terms, 4, 4);
        _challenge(terms, 3, 4, 4);
        _resolve(terms, 1);
        _assertState(lease, CLOSING | LATE | CLAIMED_IN_CLOSING, 3, 3, 4, _tip(4));
        _closeAfterWindow(terms);
        assertEq(_free(client), FUNDS - 4 * uint256(PRICE + FEE), "no penalty");
    }

    function test_False() external {
        _challenge(terms, 1, 3, 2);
        bytes32 id = _dispute(terms);
        arbiter.rule(id, 2);
        uint256 stakeToClient = STAKE - ARBITER_FEE - REWARD;
        vm.expectEmit(address(escrow));
        emit IEscrow.Resolved(lease, id, 2);
        vm.expectEmit(address(escrow));
        emit IEscrow.Closed(lease, 1, stakeToClient, true);
        escrow.resolve(terms, rules);
        _assertState(lease, CLOSED, 1, 1, 1, _tip(1));
        _assertDispute(0, address(0), 0, 0);
        assertEq(_free(challenger), FUNDS + REWARD, "challenger");
        assertEq(_free(address(arbiter)), ARBITER_FEE, "arbiter");
        assertEq(_free(provider), FUNDS - STAKE + PRICE, "provider");
        assertEq(_free(client), FUNDS - PRICE - FEE + stakeToClient, "client");
        assertEq(_free(matcher), FEE, "matcher");
        assertEq(_active(provider), 0, "active");
    }

    function test_False_FromClosing() external {
        _end(terms, provider);
        _challenge(terms, 1, 3, 2);
        _resolve(terms, 2);
        _assertState(lease, CLOSED, 1, 1, 1, _tip(1));
        assertEq(_active(provider), 0, "active");
    }

    function test_False_ClientHadEnded() external {
        _end(terms, client);
        _challenge(terms, 1, 3, 2);
        _resolve(terms, 2);
        _assertGone(lease);
    }

    function test_False_PaysWhatWasAccepted() external {
        vm.warp(START_TIME + WINDOW);
        _claim(terms, 4, 5);
        _challenge(terms, 3, 5, 4);
        _resolve(terms, 2);
        _assertState(lease, CLOSED, 3, 3, 3, _tip(3));
        _assertPaidSoFar(3);
    }

    function test_False_OddStake() external {
        _useAnotherClient();
        Match memory item = _match(_bid(), _ask());
        item.bid.stake = ARBITER_FEE + 9;
        _resign(item);
        terms = _open(item);
        _claim(terms, 1, 1);
        _challenge(terms, 0, 1, 1);
        _resolve(terms, 2);
        assertEq(_free(challenger), FUNDS + 1, "a fifth, rounded down");
        assertEq(_free(client), FUNDS + 8, "the client has the rest");
    }

    function test_False_OneForAll() external {
        // Client and challenger are one account.
        client = challenger;
        rules.arbiter = address(arbiter);
        Match memory item = _match(_bid(), _ask());
        terms = _open(item);
        _claim(terms, 1, 1);
        uint256 before = _free(challenger);
        _challenge(terms, 0, 1, 1);
        _resolve(terms, 2);
        assertEq(_free(challenger), before + COST + STAKE - ARBITER_FEE, "bond, reward, refund and stake");
    }

    function test_Void() external {
        _challenge(terms, 1, 3, 2);
        bytes32 id = _dispute(terms);
        arbiter.rule(id, 3);
        vm.expectEmit(address(escrow));
        emit IEscrow.Resolved(lease, id, 3);
        vm.expectEmit(address(escrow));
        emit IEscrow.Closed(lease, 1, 0, true);
        escrow.resolve(terms, rules);
        _assertState(lease, CLOSED, 1, 1, 1, _tip(1));
        _assertDispute(0, address(0), 0, 0);
        assertEq(_free(challenger), FUNDS, "challenger");
        assertEq(_free(address(arbiter)), ARBITER_FEE, "arbiter");
        assertEq(_free(provider), FUNDS - STAKE + PRICE, "provider");
        assertEq(_free(client), FUNDS - PRICE - FEE, "client");
        assertEq(_free(matcher), FEE, "matcher");
        assertEq(_free(address(0)), STAKE - ARBITER_FEE, "burnt");
        assertEq(_active(provider), 0, "active");
    }

    function test_Void_FromClosing() external {
        vm.warp(START_TIME + WINDOW);
        _end(terms, client);
        _claim(terms, 4, 5);
        _challenge(terms, 3, 5, 5);
        _resolve(terms, 3);
        _assertGone(lease);
        assertEq(_free(provider), FUNDS - STAKE + 3 * PRICE, "provider");
        assertEq(_free(client), FUNDS - 3 * uint256(PRICE + FEE), "client");
        assertEq(_free(address(0)), STAKE - ARBITER_FEE, "burnt");
        assertEq(_active(provider), 0, "active");
    }

    function test_Void_NothingToBurn() external {
        _useAnotherClient();
        Match memory item = _match(_bid(), _ask());
        item.bid.stake = ARBITER_FEE;
        _resign(item);
        terms = _open(item);
        _claim(terms, 1, 1);
        _challenge(terms, 0, 1, 1);
        _resolve(terms, 3);
        assertEq(_free(address(0)), 0, "burnt");
        assertEq(_free(address(arbiter)), ARBITER_FEE, "arbiter");
        assertEq(_free(client), FUNDS, "client");
    }

    function test_Void_NoFee() external {
        rules.arbiterFee = 0;
        _useAnotherClient();
        terms = _opened();
        _claim(terms, 1, 1);
        _challenge(terms, 0, 1, 1);
        _resolve(terms, 3);
        assertEq(_free(address(0)), STAKE, "burnt");
        assertEq(_free(address(arbiter)), 0, "arbiter");
        assertEq(_free(challenger), FUNDS, "challenger");
        assertEq(_free(client), FUNDS, "client");
    }

    function test_Void_OneForAll() external {
        client = challenger;
        provider = challenger;
        terms = _open(_match(_bid(), _ask()));
        _claim(terms, 1, 1);
        uint256 before = _free(challenger);
        _challenge(terms, 0, 1, 1);
        _resolve(terms, 3);
        assertEq(_free(challenger), before + COST, "the lock only");
        assertEq(_active(challenger), 0, "active");
    }

    function test_Unreproducible() external {
        _challenge(terms, 1, 3, 2);
        bytes32 id = _dispute(terms);
        arbiter.rule(id, 4);
        vm.expectEmit(address(escrow));
        emit IEscrow.Resolved(lease, id, 4);
        vm.expectEmit(address(escrow));
        emit IEscrow.Closed(lease, 1, 0, true);
        escrow.resolve(terms, rules);
        _assertState(lease, CLOSED, 1, 1, 1, _tip(1));
        _assertDispute(0, address(0), 0, 0);
        assertEq(_free(challenger), FUNDS - ARBITER_FEE, "challenger");
        assertEq(_free(address(arbiter)), ARBITER_FEE, "arbiter");
        assertEq(_free(address(0)), 0, "burnt");
        _assertPaid(1, 0);
    }

    function test_Unreproducible_FromClosing() external {
        vm.warp(START_TIME + WINDOW);
        _end(terms, provider);
        _claim(terms, 4, 5);
        _challenge(terms, 3, 5, 5);
        _resolve(terms, 4);
        _assertState(lease, CLOSED, 3, 3, 3, _tip(3));
        _assertPaid(3, 0);
    }

    function test_Silent() external {
        uint256 free = _free(provider);
        _challenge(terms, 1, 3, 2);
        bytes32 id = _dispute(terms);
        vm.warp(START_TIME + ARBITER_TIMEOUT);
        vm.expectEmit(address(escrow));
        emit IEscrow.Resolved(lease, id, 0);
        vm.expectEmit(address(escrow));
        emit IEscrow.Closed(lease, 1, 0, true);
        escrow.resolve(terms, rules);
        _assertState(lease, CLOSED, 1, 1, 1, _tip(1));
        assertEq(_free(challenger), FUNDS - 2 * PRICE, "challenger");
        assertEq(_free(address(arbiter)), 0, "arbiter");
        assertEq(_free(provider), free + 2 * PRICE + STAKE, "provider");
        assertEq(_free(client), FUNDS - PRICE - FEE, "client");
        assertEq(_active(provider), 0, "active");
    }

    function test_BadAnswersAreSilence() external {
        _challenge(terms, 1, 3, 2);
        bytes32 id = _dispute(terms);
        arbiter.rule(id, 2);
        ScriptedArbiter.Mood[5] memory moods = [
            ScriptedArbiter.Mood.Reverts,
            ScriptedArbiter.Mood.EatsGas,
            ScriptedArbiter.Mood.AnswersShort,
            ScriptedArbiter.Mood.AnswersFive,
            ScriptedArbiter.Mood.AnswersDirty
        ];
        for (uint256 i; i < moods.length; ++i) {
            arbiter.setMood(moods[i]);
            vm.expectRevert(abi.encodeWithSelector(IEscrow.Escrow_NoVerdict.selector, id, START_TIME + ARBITER_TIMEOUT));
            escrow.resolve(terms, rules);
        }
        vm.warp(START_TIME + ARBITER_TIMEOUT);
        escrow.resolve(terms, rules);
        assertEq(_free(challenger), FUNDS - 2 * PRICE, "silence");
    }

    function test_LongAnswerIsHeard() external {
        _challenge(terms, 1, 3, 2);
        arbiter.setMood(ScriptedArbiter.Mood.AnswersLong);
        _resolve(terms, 1);
        _assertState(lease, ACTIVE, 1, 1, 3, _tip(3));
    }

    function test_VerdictAfterTheTime() external {
        _challenge(terms, 1, 3, 2);
        vm.warp(START_TIME + 10 * ARBITER_TIMEOUT);
        _resolve(terms, 2);
        assertEq(_free(challenger), FUNDS + REWARD, "counts");
    }

    function test_SecondDispute() external {
        _challenge(terms, 1, 3, 2);
        _resolve(terms, 1);
        _challenge(terms, 1, 3, 2);
        bytes32 id = _dispute(terms);
        assertEq(id, _disputeId(2, _tip(3), 2, 0), "id");
        vm.expectRevert(
            abi.encodeWithSelector(IEscrow.Escrow_NoVerdict.selector, id, block.timestamp + ARBITER_TIMEOUT)
        );
        escrow.resolve(terms, rules);
    }

    function test_ForkOfTheChain() external {
        _challenge(terms, 1, 3, 2);
        bytes32 id = _dispute(terms);
        arbiter.rule(id, 1);
        vm.chainId(block.chainid + 1);
        escrow.resolve(terms, rules);
        _assertState(lease, ACTIVE, 1, 1, 3, _tip(3));
    }
}
