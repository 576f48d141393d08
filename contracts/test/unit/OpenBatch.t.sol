// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.28;

import {Bid, IEscrow, Match, Reason, Rules, Terms} from "../../src/interfaces/IEscrow.sol";
import {Vm} from "../utils/Vm.sol";
import {Wallet} from "../utils/Wallets.sol";
import {EscrowTest} from "../utils/EscrowTest.sol";

/* openBatch
 * ├── no items: nothing
 * ├── an item names rules that are not there: skipped with RulesDiffer
 * ├── items under different rules: all open
 * ├── rules are told once, before the first that is opened under them; not if none is
 * ├── items without rules of their own: open under those of their index
 * ├── one item can't be opened: skipped with its Reason and an event, the others open
 * ├── the same match twice: the second is BidUsed
 * ├── the same continuation twice: the second is PrevNotContinuable
 * ├── one balance for two Bids: the second is BalanceShort
 * ├── a good item after a refused one: opens with nothing of the other's
 * └── an item's wallet reverts, eats gas, or returns a lot: skipped, at bounded cost
 */
contract OpenBatchTest is EscrowTest {
    function test_NoItems() external {
        assertEq(escrow.openBatch(new Rules[](0), new Match[](0)).length, 0, "reasons");
    }

    function test_UnknownRules() external {
        Match[] memory items = _matches(2);
        items[0].rules = 1;
        items[1].rules = type(uint256).max;
        Reason[] memory reasons = _openBatch(items);
        assertEq(reasons[0], Reason.RulesDiffer, "first");
        assertEq(reasons[1], Reason.RulesDiffer, "second");
    }

    function test_DifferentRules() external {
        Match[] memory items = _matches(2);
        Rules[] memory all = new Rules[](2);
        all[0] = rules;
        rules.window = 2 hours;
        all[1] = rules;
        items[1].bid.rules = escrow.hashRules(rules);
        items[1].ask.rules = items[1].bid.rules;
        items[1].rules = 1;
        _resign(items[1]);
        vm.prank(matcher);
        Reason[] memory reasons = escrow.openBatch(all, items);
        assertEq(reasons[0], Reason.Ok, "first");
        assertEq(reasons[1], Reason.Ok, "second");
        _assertState(_id(_terms(items[1], 0)), ACTIVE, 0, 0, 0, bytes20(JOB)); // whose window is 2 hours
    }

    function test_RulesAreToldOnce() external {
        Match[] memory items = _matches(5);
        Rules[] memory all = new Rules[](3);
        all[0] = rules;
        rules.window = 2 hours;
        all[1] = rules;
        rules.window = 3 hours;
        all[2] = rules;
        for (uint256 i; i < items.length; ++i) {
            items[i].rules = i == 4 ? 2 : i % 2;
            items[i].bid.rules = items[i].ask.rules = escrow.hashRules(all[items[i].rules]);
            items[i].ask.maxActive = 100;
            if (i == 0 || i == 4) items[i].price = PRICE - 1;
            _resign(items[i]);
        }
        vm.recordLogs();
        vm.prank(matcher);
        escrow.openBatch(all, items);
        Vm.Log[] memory logs = vm.getRecordedLogs();
        bytes32[7] memory topics = [
            IEscrow.Skipped.selector,
            IEscrow.RulesUsed.selector,
            IEscrow.Opened.selector,
            IEscrow.RulesUsed.selector,
            IEscrow.Opened.selector,
            IEscrow.Opened.selector,
            IEscrow.Skipped.selector
        ];
        assertEq(logs.length, topics.length, "logs");
        for (uint256 i; i < topics.length; ++i) {
            assertEq(logs[i].topics[0], topics[i], "topic");
        }
        assertEq(logs[1].topics[1], escrow.hashRules(all[1]), "the second rules' hash");
        assertEq(keccak256(logs[1].data), keccak256(abi.encode(all[1])), "the second rules");
        assertEq(logs[3].topics[1], escrow.hashRules(all[0]), "the first rules' hash");
        assertEq(keccak256(logs[3].data), keccak256(abi.encode(all[0])), "the first rules");
    }

    function test_RulesLeftOut() external {
        Match[] memory items = _matches(2);
        Rules[] memory all = new Rules[](2);
        all[0] = rules;
        rules.window = 2 hours;
        all[1] = rules;
        (items[1].rules, items[1].bid.rules, items[1].ask.rules) =
            (1, escrow.hashRules(rules), escrow.hashRules(rules));
        _resign(items[1]);
        bytes32 lease = _id(_terms(items[1], 0));
        items[0].ask.maxActive = 3;
        _resign(items[0]);
        items[0].bid.rules = items[0].ask.rules = items[1].bid.rules = items[1].ask.rules = 0;
        vm.prank(matcher);
        Reason[] memory reasons = escrow.openBatch(all, items);
        assertEq(reasons[0], Reason.Ok, "first");
        assertEq(reasons[1], Reason.Ok, "second");
        _assertState(lease, ACTIVE, 0, 0, 0, bytes20(JOB));
        // Under another index, what was signed is not this.
        items[0].bid.nonce = 5;
        items[0].rules = 1;
        vm.prank(matcher);
        assertEq(escrow.openBatch(all, items)[0], Reason.BidSignatureInvalid, "others");
    }

    function test_SkipsOne() external {
        Match[] memory items = _matches(3);
        items[1].bid.maxPrice = 1;
        vm.expectEmit(address(escrow));
        emit IEscrow.Skipped(1, Reason.PriceAboveBid);
        Reason[] memory reasons = _openBatch(items);
        assertEq(reasons.length, 3, "length");
        assertEq(reasons[0], Reason.Ok, "first");
        assertEq(reasons[1], Reason.PriceAboveBid, "second");
        assertEq(reasons[2], Reason.Ok, "third");
        _assertState(_id(_terms(items[2], 0)), ACTIVE, 0, 0, 0, bytes20(JOB));
        assertEq(_active(provider), 2, "active");
    }

    function test_SameMatchTwice() external {
        Match[] memory items = _matches(2);
        items[1] = items[0];
        Reason[] memory reasons = _openBatch(items);
        assertEq(reasons[0], Reason.Ok, "first");
        assertEq(reasons[1], Reason.BidUsed, "second");
        assertEq(_free(client), FUNDS - COST, "locked once");
        assertEq(_active(provider), 1, "active");
    }

    function test_SameContinuationTwice() external {
        Terms memory terms = _opened();
        Match[] memory items = new Match[](2);
        items[0] = _continue(_bid(), _ask(), terms);
        items[1] = items[0];
        _end(terms, provider);
        _closeAfterWindow(terms);
        Reason[] memory reasons = _openBatch(items);
        assertEq(reasons[0], Reason.Ok, "first");
        assertEq(reasons[1], Reason.PrevNotContinuable, "second");
    }

    function test_OneBalanceForTwo() external {
        _withdraw(client, FUNDS - COST - 1);
        Reason[] memory reasons = _openBatch(_matches(2));
        assertEq(reasons[0], Reason.Ok, "first");
        assertEq(reasons[1], Reason.BalanceShort, "second");
        assertEq(_free(client), 1, "client");
    }

    function test_NothingOfARefusedItemStays() external {
        Match[] memory items = _matches(2);
        // The first is a continuation from index 2 with its own tip, refused at the very last check.
        Bid memory bid = _bid(7);
        Terms memory terms = _open(_match(bid, _ask()));
        items[0] = _continue(bid, _ask(), terms);
        items[0].askSignature = items[0].bidSignature;
        _redeem(terms, 2);
        _end(terms, provider);
        _closeAfterWindow(terms);
        uint256 free = _free(client);
        Reason[] memory reasons = _openBatch(items);
        assertEq(reasons[0], Reason.AskSignatureInvalid, "first");
        assertEq(reasons[1], Reason.Ok, "second");
        _assertState(_id(_terms(items[1], 0)), ACTIVE, 0, 0, 0, bytes20(JOB));
        _assertState(_id(terms), CLOSED, 2, 2, 2, _tip(2));
        assertEq(_free(client), free - COST, "client");
    }

    function test_BadWallets() external {
        Wallet wallet = _wallet("owner");
        Match[] memory items = _matches(3);
        items[1].bid.client = address(wallet);
        items[1].ask.maxActive = 100;
        _resign(items[1]);
        for (uint8 mood = uint8(Wallet.Mood.SaysNo); mood <= uint8(Wallet.Mood.AnswersDirty); ++mood) {
            wallet.setMood(Wallet.Mood(mood));
            items[0].bid.nonce = 10 + 2 * mood;
            items[2].bid.nonce = 11 + 2 * mood;
            items[0].ask.maxActive = items[2].ask.maxActive = 100;
            _resign(items[0]);
            _resign(items[2]);
            uint256 gas = gasleft();
            Reason[] memory reasons = _openBatch(items);
            assertLe(gas - gasleft(), 450_000, "gas of three");
            assertEq(reasons[0], Reason.Ok, "before");
            if (mood == uint8(Wallet.Mood.ReturnBomb)) {
                // What it says first is right. That it says more is its own affair: nothing else is copied.
                assertTrue(reasons[1] == Reason.Ok || reasons[1] == Reason.BidSignatureInvalid, "bomb");
            } else {
                assertEq(reasons[1], Reason.BidSignatureInvalid, "bad wallet");
            }
            assertEq(reasons[2], Reason.Ok, "after");
        }
    }

    function _matches(uint256 count) private view returns (Match[] memory items) {
        items = new Match[](count);
        for (uint256 i; i < count; ++i) {
            items[i] = _match(_bid(uint40(i)), _ask());
        }
    }

    function _openBatch(Match[] memory items) private returns (Reason[] memory) {
        Rules[] memory all = new Rules[](1);
        all[0] = rules;
        vm.prank(matcher);
        return escrow.openBatch(all, items);
    }
}
