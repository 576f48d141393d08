// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.28;

import {Ask, Bid, IEscrow, Match, Phase, Rules, Terms} from "../../src/interfaces/IEscrow.sol";
import {Model} from "./Model.sol";

/// @notice The moves that open leases.
abstract contract OpenMoves is Model {
    function open(uint256 who, uint256 numbers) external {
        Match memory item;
        Bid memory bid = item.bid;
        bid.client = _actor(who, 0);
        bid.matcher = _actor(who, 1);
        bid.approver = who % 3 == 0 ? address(0) : _actor(who, 2);
        bid.job = keccak256(abi.encode("job", leases.length));
        bid.rules = escrow.hashRules(rules[numbers % 2]);
        bid.checkpoints = uint16(1 + _part(numbers, 1) % 20);
        bid.units = 1;
        bid.fee = uint64(_part(numbers, 2) % 3);
        bid.maxPrice = type(uint96).max;
        bid.stake = uint96(ARBITER_FEE + _part(numbers, 3) % 200);
        bid.validUntil = type(uint40).max;
        bid.nonce = uint40((uint256(pages[bid.client]) << 8) | (_part(numbers, 4) % 112));
        item.rules = numbers % 2;
        item.price = uint96(1 + _part(numbers, 5) % 100);
        _open(item, _actor(who, 3), numbers, 0, bytes20(bid.job));
    }

    /// @notice The next lease of a Bid, if the one drawn is Closed.
    function continueLease(uint256 which, uint256 who, uint256 numbers) external {
        if (leases.length == 0) return;
        Lease storage l = _pick(which);
        Match memory item;
        item.bid = l.bid;
        item.rules = l.rules;
        item.price = uint96(1 + _part(numbers, 5) % 100);
        item.prevProvider = l.terms.provider;
        item.prevNums = l.terms.nums;
        item.prevAskPrice = l.terms.askPrice;
        item.prevPrev = l.terms.parties.prev;
        bool ok = _open(item, _actor(who, 0), numbers, l.accepted, l.acceptedTip);
        if (!ok) return;
        assertTrue(l.phase == Phase.Closed, "only a Closed lease is continued");
        l.phase = Phase.None;
    }

    function _open(Match memory item, address provider, uint256 numbers, uint256 start, bytes20 tip)
        private
        returns (bool ok)
    {
        _askFor(item, provider, numbers);
        Terms memory terms = _termsUnder(rules[item.rules], item, escrow.hashBid(item.bid), start);
        ok = _canOpen(item, terms, start);
        _snapshot();
        if (numbers % 5 < 3) {
            (Rules[] memory all, Match[] memory items) = (new Rules[](2), new Match[](1));
            (all[0], all[1], items[0]) = (rules[0], rules[1], item);
            vm.prank(item.bid.matcher);
            assertEq(uint8(escrow.openBatch(all, items)[0]) == 0, ok, "openBatch");
        } else {
            uint256 index = item.rules;
            item.rules = 0;
            _call(item.bid.matcher, abi.encodeCall(IEscrow.open, (rules[index], item)), ok, "open");
            item.rules = index;
        }
        if (!ok) return false;
        ++calls["opened"];
        _record(item, terms, start, tip);
    }

    function _askFor(Match memory item, address provider, uint256 numbers) private view {
        item.ask = Ask({
            provider: provider,
            matcher: address(0),
            resources: 0,
            rules: item.bid.rules,
            pricePerHour: 1,
            unitsPerHour: 1,
            maxStake: type(uint96).max,
            maxActive: 3,
            maxCheckpoints: uint16(1 + _part(numbers, 6) % 12),
            validFrom: 0,
            validUntil: type(uint40).max,
            page: pages[provider]
        });
        item.bidSignature = _sign(item.bid.client, escrow.hashBid(item.bid));
        item.askSignature = _sign(provider, escrow.hashAsk(item.ask));
    }

    function _canOpen(Match memory item, Terms memory terms, uint256 start) private view returns (bool) {
        Bid memory bid = item.bid;
        if (item.prevProvider == address(0)) {
            if (bits[bid.client] & (1 << (bid.nonce & 0xff)) != 0) return false;
        } else if (leases[_find(terms.parties.prev)].phase != Phase.Closed) {
            return false;
        }
        if (_activeOf(terms.provider) >= item.ask.maxActive) return false;
        uint256 cost = (uint256(item.price) + bid.fee) * (_lastIndex(terms.nums) - start);
        if (bid.client == terms.provider) return balances[bid.client] >= cost + bid.stake;
        return balances[bid.client] >= cost && balances[terms.provider] >= bid.stake;
    }

    function _record(Match memory item, Terms memory terms, uint256 start, bytes20 tip) private {
        Bid memory bid = item.bid;
        for (uint256 i; i < leases.length; ++i) {
            bool over = leases[i].phase == Phase.None || _id(leases[i].terms) == terms.parties.prev;
            assertTrue(over || leases[i].terms.parties.bid != terms.parties.bid, "one live lease a Bid");
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
        balances[bid.client] -= (uint256(item.price) + bid.fee) * (_lastIndex(terms.nums) - start);
        balances[terms.provider] -= bid.stake;
        _moved(l, bid.client, terms.provider);
    }
}
