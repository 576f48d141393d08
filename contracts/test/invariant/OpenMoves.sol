// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.28;

import {Ask, Bid, IEscrow, Match, Phase, Reason, Rules, Terms} from "../../src/interfaces/IEscrow.sol";
import {Model} from "./Model.sol";

/// @notice The moves that open leases.
abstract contract OpenMoves is Model {
    /// @notice One pair of new orders.
    function open(uint256 who, uint256 numbers) external {
        Match memory item = _newItem(who, numbers, _actor(who, 1));
        if (numbers % 2 == 0) _openAlone(item);
        else _openBatch(_only(item));
    }

    /// @notice The next lease of a Bid, if the one drawn is Closed.
    function continueLease(uint256 which, uint256 who, uint256 numbers) external {
        if (leases.length == 0) return;
        Match memory item = _nextItem(which, who, numbers);
        if (numbers % 2 == 0) _openAlone(item);
        else _openBatch(_only(item));
    }

    /// @notice Up to five pairs in one call: new ones, next ones, the same again, one with a bad signature.
    function openMany(uint256 which, uint256 who, uint256 numbers) external {
        Match[] memory items = new Match[](2 + numbers % 4);
        address matcher = _actor(who, 1);
        for (uint256 i; i < items.length; ++i) {
            uint256 seed = _part(numbers, 1000 + i);
            if (leases.length != 0 && seed % 3 == 0) {
                items[i] = _nextItem(_part(which, i), _part(who, i), seed);
                matcher = items[i].bid.matcher;
            } else if (i != 0 && seed % 3 == 1 && seed % 4 == 0) {
                items[i] = items[i - 1];
            } else {
                items[i] = _newItem(_part(who, 50 + i), seed, matcher);
            }
        }
        ++calls["batches"];
        _openBatch(items);
    }

    // ---------------------------------------------------------------- orders

    function _newItem(uint256 who, uint256 numbers, address matcher) private view returns (Match memory item) {
        Bid memory bid = item.bid;
        bid.client = _actor(who, 0);
        bid.matcher = matcher;
        bid.approver = who % 3 == 0 ? address(0) : _actor(who, 2);
        bid.job = keccak256(abi.encode("job", leases.length, who));
        item.rules = _part(numbers, 0) % 2;
        bid.rules = escrow.hashRules(rules[item.rules]);
        bid.checkpoints = uint16(1 + _part(numbers, 1) % 20);
        bid.units = uint64(1 + _part(numbers, 7) % 5);
        bid.fee = uint64(_part(numbers, 2) % 3);
        bid.maxPrice = type(uint96).max;
        bid.stake = uint96(ARBITER_FEE + _part(numbers, 3) % 200);
        bid.validUntil = type(uint40).max;
        bid.nonce = uint40((uint256(pages[bid.client]) << 8) | (_part(numbers, 4) % 112));
        _addAsk(item, _actor(who, 3), numbers);
    }

    function _nextItem(uint256 which, uint256 who, uint256 numbers) private view returns (Match memory item) {
        Lease storage l = _pick(which);
        item.bid = l.bid;
        item.rules = l.rules;
        item.prevProvider = l.terms.provider;
        item.prevNums = l.terms.nums;
        item.prevAskPrice = l.terms.askPrice;
        item.prevPrev = l.terms.parties.prev;
        _addAsk(item, _actor(who, 0), numbers);
    }

    function _addAsk(Match memory item, address provider, uint256 numbers) private view {
        item.ask = Ask({
            provider: provider,
            matcher: address(0),
            resources: 0,
            rules: item.bid.rules,
            pricePerHour: uint96(1 + _part(numbers, 8) % 30),
            unitsPerHour: uint64(1 + _part(numbers, 9) % 4),
            maxStake: type(uint96).max,
            maxActive: 3,
            maxCheckpoints: uint16(1 + _part(numbers, 6) % 12),
            validFrom: 0,
            validUntil: type(uint40).max,
            page: pages[provider]
        });
        item.price = uint96(1 + _part(numbers, 5) % 100);
        item.bidSignature = _sign(item.bid.client, escrow.hashBid(item.bid));
        item.askSignature = _sign(provider, escrow.hashAsk(item.ask));
        if (_part(numbers, 10) % 16 == 0) item.askSignature[5] ^= 0x01;
    }

    function _only(Match memory item) private pure returns (Match[] memory items) {
        items = new Match[](1);
        items[0] = item;
    }

    // ---------------------------------------------------------------- calls

    function _openAlone(Match memory item) private {
        uint256 index = item.rules;
        bool ok = _foretell(item, item.bid.matcher);
        item.rules = 0;
        _leaveOutRules(item);
        _call(item.bid.matcher, abi.encodeCall(IEscrow.open, (rules[index], item)), ok, "open");
    }

    function _openBatch(Match[] memory items) private {
        bool[] memory expected = new bool[](items.length);
        address matcher = items[items.length - 1].bid.matcher;
        for (uint256 i; i < items.length; ++i) {
            expected[i] = _foretell(items[i], matcher);
            if (items.length > 1) ++calls[expected[i] ? "opened in batches" : "refused in batches"];
        }
        Match[] memory sent = abi.decode(abi.encode(items), (Match[]));
        Rules[] memory all = new Rules[](2);
        (all[0], all[1]) = (rules[0], rules[1]);
        for (uint256 i; i < items.length; ++i) {
            _leaveOutRules(sent[i]);
        }
        vm.prank(matcher);
        Reason[] memory reasons = escrow.openBatch(all, sent);
        for (uint256 i; i < items.length; ++i) {
            assertEq(uint8(reasons[i]) == 0, expected[i], "openBatch");
        }
        checkBalances();
    }

    function _leaveOutRules(Match memory item) private pure {
        if (item.price % 2 == 0) item.bid.rules = 0;
        if (item.price % 3 == 0) item.ask.rules = 0;
    }

    // ---------------------------------------------------------------- the model's part

    /// @dev Opens it in the model, if the escrow has to.
    function _foretell(Match memory item, address matcher) private returns (bool ok) {
        (uint256 start, bytes20 tip) = (0, bytes20(item.bid.job));
        bool first = item.prevProvider == address(0);
        Terms memory terms = _termsOf(item, 0);
        uint256 prev;
        if (!first) {
            prev = _find(terms.parties.prev);
            (start, tip) = (leases[prev].accepted, leases[prev].acceptedTip);
            terms = _termsOf(item, start);
        }
        if (item.bid.matcher != matcher || !_fits(item, first)) return false;
        if (!first && leases[prev].phase != Phase.Closed) return false;
        if (!_isCovered(item, terms, start) || !_areSigned(item)) return false;
        if (!first) {
            ++calls["continued"];
            leases[prev].phase = Phase.None;
        }
        ++calls["opened"];
        _record(item, terms, start, tip);
        return true;
    }

    function _termsOf(Match memory item, uint256 start) private view returns (Terms memory) {
        return _termsUnder(rules[item.rules], item, escrow.hashBid(item.bid), start);
    }

    function _fits(Match memory item, bool first) private view returns (bool) {
        Bid memory bid = item.bid;
        if (first && (pages[bid.client] != bid.nonce >> 8 || bits[bid.client] & (1 << (bid.nonce & 0xff)) != 0)) {
            return false;
        }
        uint256 hours_ = item.ask.unitsPerHour;
        if (item.price * hours_ < uint256(item.ask.pricePerHour) * bid.units) return false;
        return pages[item.ask.provider] == item.ask.page && _activeOf(item.ask.provider) < item.ask.maxActive;
    }

    function _isCovered(Match memory item, Terms memory terms, uint256 start) private view returns (bool) {
        Bid memory bid = item.bid;
        uint256 cost = (uint256(item.price) + bid.fee) * (_lastIndex(terms.nums) - start);
        if (bid.client == terms.provider) return balances[bid.client] >= cost + bid.stake;
        return balances[bid.client] >= cost && balances[terms.provider] >= bid.stake;
    }

    function _areSigned(Match memory item) private view returns (bool) {
        bytes memory good = _sign(item.ask.provider, escrow.hashAsk(item.ask));
        if (keccak256(good) != keccak256(item.askSignature)) return false;
        return _stands(item.bid.client) && _stands(item.ask.provider);
    }

    function _record(Match memory item, Terms memory terms, uint256 start, bytes20 tip) private {
        Bid memory bid = item.bid;
        for (uint256 i; i < leases.length; ++i) {
            assertTrue(
                leases[i].phase == Phase.None || leases[i].terms.parties.bid != terms.parties.bid, "one live lease a Bid"
            );
        }
        Lease storage l = leases.push();
        l.terms = terms;
        l.bid = bid;
        l.rules = item.rules;
        l.phase = Phase.Active;
        l.more = _lastIndex(terms.nums) < bid.checkpoints;
        l.settled = l.accepted = l.claimed = start;
        l.t = block.timestamp;
        l.acceptedTip = l.claimedTip = tip;
        if (item.prevProvider == address(0)) bits[bid.client] |= 1 << (bid.nonce & 0xff);
        _take(l, bid.client, (uint256(item.price) + bid.fee) * (_lastIndex(terms.nums) - start));
        _take(l, terms.provider, bid.stake);
        if (bid.client == terms.provider) ++calls["opened with oneself"];
        if (bid.client == address(wallet)) ++calls["opened for the wallet"];
        if (terms.provider == address(wallet)) ++calls["opened by the wallet"];
    }
}
