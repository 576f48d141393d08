// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.28;

import {EIP712} from "@openzeppelin/contracts/utils/cryptography/EIP712.sol";
import {MessageHashUtils} from "@openzeppelin/contracts/utils/cryptography/MessageHashUtils.sol";

import {Ask, Bid, Bounds, IEscrow, Match, Parties, Phase, Reason, Rules} from "../interfaces/IEscrow.sol";
import {Account, AccountLib} from "../libraries/AccountLib.sol";
import {OrderLib} from "../libraries/OrderLib.sol";
import {SignatureLib} from "../libraries/SignatureLib.sol";
import {State, StateLib} from "../libraries/StateLib.sol";
import {Nums, NumsLib, TermsLib} from "../libraries/TermsLib.sol";
import {Leases} from "./Leases.sol";

/// @dev From two signed orders to a lease.
abstract contract Openings is EIP712, Leases {
    using OrderLib for *;
    using TermsLib for Parties;

    /// @dev Rules as `_open` needs them, made once for all items of a batch.
    struct CheckedRules {
        Rules rules;
        bytes32 hash;
        bool inBounds;
        /// Whether `RulesUsed` has told them.
        bool told;
    }

    /// @dev What `_open` works on. Made once for all items of a batch, so that memory does not grow with it.
    struct Opening {
        bytes32 domain;
        Bid bid;
        Ask ask;
        Parties parties;
        uint256 price;
        uint96 askPrice;
        Account client;
        Account provider;
        uint256 end;
        bytes20 tip;
        bytes32 askId;
    }

    uint256 private immutable _minCheckpointTimeout;
    uint256 private immutable _maxCheckpointTimeout;
    uint256 private immutable _minWindow;
    uint256 private immutable _maxWindow;
    uint256 private immutable _minArbiterTimeout;
    uint256 private immutable _maxArbiterTimeout;

    constructor(Bounds memory b) EIP712("gpumarket", "2") {
        if (
            b.minCheckpointTimeout == 0 || b.minCheckpointTimeout > b.maxCheckpointTimeout || b.minWindow == 0
                || b.minWindow > b.maxWindow || b.minArbiterTimeout == 0 || b.minArbiterTimeout > b.maxArbiterTimeout
        ) revert Escrow_BoundsInvalid();
        _minCheckpointTimeout = b.minCheckpointTimeout;
        _maxCheckpointTimeout = b.maxCheckpointTimeout;
        _minWindow = b.minWindow;
        _maxWindow = b.maxWindow;
        _minArbiterTimeout = b.minArbiterTimeout;
        _maxArbiterTimeout = b.maxArbiterTimeout;
    }

    /// @inheritdoc IEscrow
    function open(Rules calldata rules, Match calldata item) external returns (bytes32 lease) {
        Opening memory o;
        o.domain = _domainSeparatorV4();
        Reason reason = Reason.RulesDiffer;
        if (item.rules == 0) (reason, lease) = _open(_checkRules(rules), item, o);
        if (reason != Reason.Ok) revert Escrow_Refused(reason);
    }

    /// @inheritdoc IEscrow
    function openBatch(Rules[] calldata rules, Match[] calldata items) external returns (Reason[] memory reasons) {
        CheckedRules[] memory checked = new CheckedRules[](rules.length);
        for (uint256 i; i < rules.length; ++i) {
            checked[i] = _checkRules(rules[i]);
        }
        Opening memory o;
        o.domain = _domainSeparatorV4();
        reasons = new Reason[](items.length);
        for (uint256 i; i < items.length; ++i) {
            Match calldata item = items[i];
            uint256 index = item.rules;
            Reason reason = Reason.RulesDiffer;
            if (index < rules.length) (reason,) = _open(checked[index], item, o);
            if (reason != Reason.Ok) {
                reasons[i] = reason;
                emit Skipped(i, reason);
            }
        }
    }

    function _checkRules(Rules calldata source) private view returns (CheckedRules memory checked) {
        Rules memory rules = checked.rules;
        source.copyTo(rules);
        checked.hash = rules.hash();
        checked.inBounds = rules.arbiter != address(0) && rules.checkpointTimeout >= _minCheckpointTimeout
            && rules.checkpointTimeout <= _maxCheckpointTimeout && rules.window >= _minWindow
            && rules.window <= _maxWindow && rules.arbiterTimeout >= _minArbiterTimeout
            && rules.arbiterTimeout <= _maxArbiterTimeout;
    }

    /// @dev Refuses with a Reason and no effect. Checks stand in the order of the enum, cheap ones before signatures.
    function _open(CheckedRules memory rules, Match calldata item, Opening memory o)
        private
        returns (Reason reason, bytes32 lease)
    {
        Bid memory bid = o.bid;
        Ask memory ask = o.ask;
        item.bid.copyTo(bid);
        item.ask.copyTo(ask);
        reason = _checkTerms(rules, bid, ask);
        if (reason != Reason.Ok) return (reason, 0);

        o.client = _accounts[bid.client];
        o.provider = _accounts[ask.provider];
        bool first = item.prevProvider == address(0);
        if (first) {
            // A Bid's nonce is looked at, and used, at its first lease only.
            if (o.client.page() != bid.nonce >> 8) return (Reason.BidCancelled, 0);
            if (o.client.isUsed(uint8(bid.nonce))) return (Reason.BidUsed, 0);
            o.client = o.client.use(uint8(bid.nonce));
        }
        if (o.provider.page() != ask.page) return (Reason.AskCancelled, 0);
        o.price = item.price;
        reason = _checkLimits(rules, bid, ask, o);
        if (reason != Reason.Ok) return (reason, 0);

        Parties memory parties = o.parties;
        parties.bid = MessageHashUtils.toTypedDataHash(o.domain, bid.hash());
        _setParties(parties, bid);
        uint256 start;
        if (first) {
            o.tip = bid.startTip == 0 ? bytes20(bid.job) : bid.startTip;
        } else {
            State prev = _findPrev(item, parties);
            if (!prev.isIn(Phase.Closed)) return (Reason.PrevNotContinuable, 0);
            (start, o.tip) = (prev.accepted(), prev.tip());
        }
        reason = _lockBalances(bid, ask, o, start);
        if (reason != Reason.Ok) return (reason, 0);
        o.askId = MessageHashUtils.toTypedDataHash(o.domain, ask.hash());
        if (!SignatureLib.isValid(bid.client, parties.bid, item.bidSignature)) return (Reason.BidSignatureInvalid, 0);
        if (!SignatureLib.isValid(ask.provider, o.askId, item.askSignature)) return (Reason.AskSignatureInvalid, 0);

        Nums nums = _pack(rules.rules, o, start);
        {
            // Cut by hand: `id` hashes the word as it stands, and a build without via-IR would not cut it here.
            address provider = address(uint160(uint256(uint160(ask.provider))));
            lease = TermsLib.id(provider, Nums.unwrap(nums), o.askPrice, parties.hashMemory());
        }
        if (!first) _states[parties.prev] = State.wrap(0);
        _states[lease] = StateLib.start(start, o.tip, o.end < bid.checkpoints);
        // In this order: if both are one account, the provider's word holds both changes.
        _accounts[bid.client] = o.client;
        _accounts[ask.provider] = o.provider;
        if (!rules.told) {
            rules.told = true;
            emit RulesUsed(rules.hash, rules.rules);
        }
        _emitOpened(lease, nums, o);
    }

    /// @dev The event by hand: Solidity would clean each word of the parties again, which the lease's id has hashed as
    /// they are.
    function _emitOpened(bytes32 lease, Nums nums, Opening memory o) private {
        bytes32 topic = Opened.selector;
        (bytes32 ask, uint256 askPrice, bytes32 tip) = (o.askId, o.askPrice, bytes32(o.tip));
        (uint256 provider, uint256 client) = (uint160(o.ask.provider), uint160(o.bid.client));
        Parties memory parties = o.parties;
        assembly ("memory-safe") {
            let p := mload(0x40)
            mstore(p, ask)
            mstore(add(p, 0x20), nums)
            mstore(add(p, 0x40), askPrice)
            mstore(add(p, 0x60), tip)
            mcopy(add(p, 0x80), parties, 0x100)
            log4(p, 0x180, topic, lease, provider, client)
        }
    }

    function _checkTerms(CheckedRules memory rules, Bid memory bid, Ask memory ask) private view returns (Reason) {
        bytes32 hash = rules.hash;
        // Left out of calldata, where each word costs; what was signed holds it.
        if (bid.rules == 0) bid.rules = hash;
        else if (bid.rules != hash) return Reason.RulesDiffer;
        if (ask.rules == 0) ask.rules = hash;
        else if (ask.rules != hash) return Reason.RulesDiffer;
        if (!rules.inBounds) return Reason.RulesOutOfBounds;
        address bidMatcher = bid.matcher;
        address askMatcher = ask.matcher;
        if (
            (bidMatcher != msg.sender && bidMatcher != address(0))
                || (askMatcher != msg.sender && askMatcher != address(0))
        ) return Reason.MatcherNotAllowed;
        if (
            bid.checkpoints == 0 || bid.units == 0 || bid.maxPrice == 0 || bid.stake == 0
                || (bidMatcher == address(0) && bid.fee != 0) || uint8(bid.nonce) >= AccountLib.NONCES
        ) return Reason.BidTermsInvalid;
        if (
            ask.pricePerHour == 0 || ask.unitsPerHour == 0 || ask.maxStake == 0 || ask.maxActive == 0
                || ask.maxCheckpoints == 0
        ) return Reason.AskTermsInvalid;
        if (block.timestamp > bid.validUntil) return Reason.BidExpired;
        if (block.timestamp < ask.validFrom || block.timestamp > ask.validUntil) return Reason.AskNotInForce;
        return Reason.Ok;
    }

    function _checkLimits(CheckedRules memory rules, Bid memory bid, Ask memory ask, Opening memory o)
        private
        pure
        returns (Reason)
    {
        unchecked {
            if (bid.stake > ask.maxStake) return Reason.StakeAboveMax;
            if (bid.stake < rules.rules.arbiterFee) return Reason.StakeBelowArbiterFee;
            // Rounded up; it fits in 96 bits if the price does not lie below it.
            uint256 askPrice = (uint256(ask.pricePerHour) * bid.units + ask.unitsPerHour - 1) / ask.unitsPerHour;
            if (o.price < askPrice) return Reason.PriceBelowAsk;
            if (o.price + bid.fee > bid.maxPrice) return Reason.PriceAboveBid;
            o.askPrice = uint96(askPrice);
            return Reason.Ok;
        }
    }

    function _pack(Rules memory rules, Opening memory o, uint256 start) private pure returns (Nums) {
        return NumsLib.pack(start, o.end, rules.window, rules.checkpointTimeout, o.price, o.bid.fee);
    }

    function _setParties(Parties memory parties, Bid memory bid) private pure {
        parties.job = bid.job;
        parties.prev = 0;
        parties.rules = bid.rules;
        parties.client = bid.client;
        parties.approver = bid.approver == address(0) ? bid.client : bid.approver;
        parties.feeTo = bid.matcher;
        parties.stake = bid.stake;
    }

    /// @dev Sets parties.prev. The previous lease had the same parties but for its own `prev`, or no lease is found.
    function _findPrev(Match calldata item, Parties memory parties) private view returns (State) {
        parties.prev = item.prevPrev;
        parties.prev = TermsLib.id(item.prevProvider, item.prevNums, item.prevAskPrice, parties.hashMemory());
        return _states[parties.prev];
    }

    /// @dev Sums can't overflow: prices and fees have 96 and 64 bits, indices 16.
    function _lockBalances(Bid memory bid, Ask memory ask, Opening memory o, uint256 start)
        private
        pure
        returns (Reason)
    {
        unchecked {
            if (o.provider.active() >= ask.maxActive) return Reason.ProviderBusy;
            o.end = start + ask.maxCheckpoints;
            if (o.end > bid.checkpoints) o.end = bid.checkpoints;
            uint256 cost = (o.price + bid.fee) * (o.end - start);
            if (o.client.free() < cost) return Reason.BalanceShort;
            o.client = o.client.debit(cost);
            if (bid.client == ask.provider) o.provider = o.client;
            if (o.provider.free() < bid.stake) return Reason.StakeShort;
            o.provider = o.provider.debit(bid.stake).activate();
            return Reason.Ok;
        }
    }

    /// @inheritdoc IEscrow
    function bounds() external view returns (Bounds memory) {
        return Bounds({
            minCheckpointTimeout: uint32(_minCheckpointTimeout),
            maxCheckpointTimeout: uint32(_maxCheckpointTimeout),
            minWindow: uint32(_minWindow),
            maxWindow: uint32(_maxWindow),
            minArbiterTimeout: uint32(_minArbiterTimeout),
            maxArbiterTimeout: uint32(_maxArbiterTimeout)
        });
    }

    /// @inheritdoc IEscrow
    function hashRules(Rules calldata rules) external pure returns (bytes32) {
        return OrderLib.hash(rules);
    }

    /// @inheritdoc IEscrow
    function hashBid(Bid calldata bid) external view returns (bytes32) {
        return _hashTypedDataV4(bid.hash());
    }

    /// @inheritdoc IEscrow
    function hashAsk(Ask calldata ask) external view returns (bytes32) {
        return _hashTypedDataV4(ask.hash());
    }
}
