// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.28;

import {IERC20} from "@openzeppelin/contracts/token/ERC20/IERC20.sol";
import {IERC20Permit} from "@openzeppelin/contracts/token/ERC20/extensions/IERC20Permit.sol";
import {SafeERC20} from "@openzeppelin/contracts/token/ERC20/utils/SafeERC20.sol";
import {EIP712} from "@openzeppelin/contracts/utils/cryptography/EIP712.sol";
import {MessageHashUtils} from "@openzeppelin/contracts/utils/cryptography/MessageHashUtils.sol";

import {IArbiter, Question} from "./interfaces/IArbiter.sol";
import {
    Approval,
    Ask,
    Bid,
    Bounds,
    IEscrow,
    Match,
    Parties,
    Phase,
    Reason,
    Redemption,
    Rules,
    Terms
} from "./interfaces/IEscrow.sol";
import {Account, AccountLib} from "./libraries/AccountLib.sol";
import {OrderLib} from "./libraries/OrderLib.sol";
import {SignatureLib} from "./libraries/SignatureLib.sol";
import {State, StateLib} from "./libraries/StateLib.sol";
import {Nums, NumsLib, TermsLib, TipLib} from "./libraries/TermsLib.sol";

/// @dev Two slots, while a lease is Challenged.
struct Dispute {
    address challenger;
    uint96 bond;
    bytes20 claimedTip;
    /// Counts from 1 over all disputes of this escrow.
    uint64 number;
}

/// @title Escrow
/// @dev Safe without a lock against reentrancy: the token is called in deposits and withdrawals only, the arbiter
/// last in `challenge`, and all else outside is a static call. Balances are written one after the other, each read
/// anew, because client, provider, feeTo, arbiter and challenger may be one and the same account.
contract Escrow is IEscrow, EIP712 {
    using SafeERC20 for IERC20;
    using OrderLib for *;
    using TermsLib for *;
    using TipLib for bytes20;

    /// An arbiter may spend this on a verdict; `resolve` must still have the floor when it asks.
    uint256 private constant VERDICT_GAS = 100_000;
    uint256 private constant VERDICT_GAS_FLOOR = 110_000;
    uint256 private constant VERDICT_TRUE = 1;
    uint256 private constant VERDICT_FALSE = 2;
    /// The challenger's part of a convicted stake, after the arbiter's fee: one in five.
    uint256 private constant REWARD_DIVISOR = 5;
    /// A challenge brings all pending roots: no claim may outgrow what one transaction can carry.
    uint256 private constant MAX_PENDING = 1024;

    IERC20 private immutable _token;
    /// The chain at deployment: a dispute keeps its id through a fork.
    uint256 private immutable _chainId;
    uint256 private immutable _minCheckpointTimeout;
    uint256 private immutable _maxCheckpointTimeout;
    uint256 private immutable _minWindow;
    uint256 private immutable _maxWindow;
    uint256 private immutable _minArbiterTimeout;
    uint256 private immutable _maxArbiterTimeout;

    mapping(address owner => Account) private _accounts;
    mapping(bytes32 lease => State) private _states;
    mapping(bytes32 lease => Dispute) private _disputes;
    uint64 private _disputeCount;

    constructor(IERC20 token_, Bounds memory b) EIP712("gpumarket", "1") {
        if (address(token_) == address(0)) revert Escrow_ZeroAddress();
        if (
            b.minCheckpointTimeout == 0 || b.minCheckpointTimeout > b.maxCheckpointTimeout || b.minWindow == 0
                || b.minWindow > b.maxWindow || b.minArbiterTimeout == 0 || b.minArbiterTimeout > b.maxArbiterTimeout
        ) revert Escrow_BoundsInvalid();
        _token = token_;
        _chainId = block.chainid;
        _minCheckpointTimeout = b.minCheckpointTimeout;
        _maxCheckpointTimeout = b.maxCheckpointTimeout;
        _minWindow = b.minWindow;
        _maxWindow = b.maxWindow;
        _minArbiterTimeout = b.minArbiterTimeout;
        _maxArbiterTimeout = b.maxArbiterTimeout;
    }

    // ---------------------------------------------------------------- balances

    /// @inheritdoc IEscrow
    function deposit(address owner, uint256 amount) public {
        if (owner == address(0)) revert Escrow_ZeroAddress();
        if (amount == 0) revert Escrow_ZeroAmount();
        if (amount > type(uint96).max) revert Escrow_TooManyTokens(amount);

        _accounts[owner] = _accounts[owner].credit(amount);
        emit Deposited(owner, msg.sender, amount);

        _token.safeTransferFrom(msg.sender, address(this), amount);
        // All balances together fit in 96 bits, so none that is credited later can overflow.
        uint256 held = _token.balanceOf(address(this));
        if (held > type(uint96).max) revert Escrow_TooManyTokens(held);
    }

    /// @inheritdoc IEscrow
    function depositWithPermit(address owner, uint256 amount, uint256 deadline, uint8 v, bytes32 r, bytes32 s)
        external
    {
        // Anyone can use up a permit seen in the mempool. Then the allowance is there already.
        try IERC20Permit(address(_token)).permit(msg.sender, address(this), amount, deadline, v, r, s) {} catch {}
        deposit(owner, amount);
    }

    /// @inheritdoc IEscrow
    function withdraw(address to, uint256 amount) external {
        if (to == address(0)) revert Escrow_ZeroAddress();
        if (amount == 0) revert Escrow_ZeroAmount();

        _debit(msg.sender, amount);
        emit Withdrawn(msg.sender, to, amount);

        _token.safeTransfer(to, amount);
    }

    /// @inheritdoc IEscrow
    function raisePage(uint32 page) external {
        Account a = _accounts[msg.sender];
        if (page <= a.page()) revert Escrow_PageNotHigher(uint32(a.page()), page);

        _accounts[msg.sender] = a.withPage(page);
        emit PageRaised(msg.sender, page);
    }

    // ---------------------------------------------------------------- open

    /// @dev Rules as `_open` needs them, made once for all items of a batch.
    struct CheckedRules {
        bytes32 hash;
        bool inBounds;
        uint256 arbiterFee;
        uint256 window;
        uint256 checkpointTimeout;
    }

    /// @dev What `_open` works on. Made once for all items of a batch, so that memory does not grow with it.
    struct Opening {
        bytes32 domain;
        Bid bid;
        Ask ask;
        Parties parties;
        uint256 price;
        Account client;
        Account provider;
        uint256 end;
        bytes20 tip;
        bytes32 askId;
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
            uint256 index = items[i].rules;
            Reason reason = Reason.RulesDiffer;
            if (index < rules.length) (reason,) = _open(checked[index], items[i], o);
            if (reason != Reason.Ok) {
                reasons[i] = reason;
                emit Skipped(i, reason);
            }
        }
    }

    function _checkRules(Rules calldata source) private view returns (CheckedRules memory checked) {
        Rules memory rules;
        source.copyTo(rules);
        checked.hash = rules.hash();
        checked.inBounds = rules.arbiter != address(0) && rules.checkpointTimeout >= _minCheckpointTimeout
            && rules.checkpointTimeout <= _maxCheckpointTimeout && rules.window >= _minWindow
            && rules.window <= _maxWindow && rules.arbiterTimeout >= _minArbiterTimeout
            && rules.arbiterTimeout <= _maxArbiterTimeout;
        checked.arbiterFee = rules.arbiterFee;
        checked.window = rules.window;
        checked.checkpointTimeout = rules.checkpointTimeout;
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
        reason = _checkLimits(rules, bid, ask, o.price);
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

        Nums nums = NumsLib.pack(start, o.end, rules.window, rules.checkpointTimeout, o.price, bid.fee);
        lease = TermsLib.id(ask.provider, Nums.unwrap(nums), parties.hashMemory());
        if (!first) _states[parties.prev] = State.wrap(0);
        _states[lease] = StateLib.start(start, o.tip, o.end < bid.checkpoints);
        // In this order: if both are one account, the provider's word holds both changes.
        _accounts[bid.client] = o.client;
        _accounts[ask.provider] = o.provider;
        emit Opened(lease, ask.provider, bid.client, o.askId, Nums.unwrap(nums), o.tip, parties);
    }

    function _checkTerms(CheckedRules memory rules, Bid memory bid, Ask memory ask) private view returns (Reason) {
        if (bid.rules != rules.hash || ask.rules != rules.hash) return Reason.RulesDiffer;
        if (!rules.inBounds) return Reason.RulesOutOfBounds;
        if (
            (bid.matcher != address(0) && bid.matcher != msg.sender)
                || (ask.matcher != address(0) && ask.matcher != msg.sender)
        ) return Reason.MatcherNotAllowed;
        if (
            bid.checkpoints == 0 || bid.units == 0 || bid.maxPrice == 0 || bid.stake == 0
                || (bid.fee != 0 && bid.matcher == address(0)) || uint8(bid.nonce) >= AccountLib.NONCES
        ) return Reason.BidTermsInvalid;
        if (
            ask.pricePerHour == 0 || ask.unitsPerHour == 0 || ask.maxStake == 0 || ask.maxActive == 0
                || ask.maxCheckpoints == 0
        ) return Reason.AskTermsInvalid;
        if (block.timestamp > bid.validUntil) return Reason.BidExpired;
        if (block.timestamp < ask.validFrom || block.timestamp > ask.validUntil) return Reason.AskNotInForce;
        return Reason.Ok;
    }

    function _checkLimits(CheckedRules memory rules, Bid memory bid, Ask memory ask, uint256 price)
        private
        pure
        returns (Reason)
    {
        unchecked {
            if (bid.stake > ask.maxStake) return Reason.StakeAboveMax;
            if (bid.stake < rules.arbiterFee) return Reason.StakeBelowArbiterFee;
            if (price * ask.unitsPerHour < uint256(ask.pricePerHour) * bid.units) return Reason.PriceBelowAsk;
            if (price + bid.fee > bid.maxPrice) return Reason.PriceAboveBid;
            return Reason.Ok;
        }
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
        parties.prev = TermsLib.id(item.prevProvider, item.prevNums, parties.hashMemory());
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

    // ---------------------------------------------------------------- claim

    /// @inheritdoc IEscrow
    function claim(address provider, uint256 nums, bytes32 parties, uint16 n, bytes20 tip, bytes32[] calldata roots)
        external
    {
        bytes32 lease = TermsLib.id(provider, nums, parties);
        State s = _states[lease].sync(Nums.wrap(nums).window());
        if (!s.isLive()) revert Escrow_WrongPhase(lease, s.status());
        if (msg.sender != provider) revert Escrow_NotAllowed(msg.sender);
        if (s.isIn(Phase.Closing)) {
            if (s.has(StateLib.CLAIMED_IN_CLOSING)) revert Escrow_AlreadyClaimedInClosing(lease);
            s = s.with(StateLib.CLAIMED_IN_CLOSING);
        }
        s = _extended(s, Nums.wrap(nums), roots);
        // An Approval or a signed Claim that got in before must not move these roots to other indices, nor to
        // another past.
        if (s.claimed() != n) revert Escrow_BadIndex(n, s.claimed(), s.claimed());
        if (s.tip() != tip) revert Escrow_TipMismatch(s.tip(), tip);

        _states[lease] = s;
        emit Claimed(lease, uint16(s.claimed()), roots);
    }

    /// @inheritdoc IEscrow
    function claimSigned(
        address provider,
        uint256 nums,
        bytes32 parties,
        bytes32[] calldata roots,
        bytes calldata signature
    ) external {
        bytes32 lease = TermsLib.id(provider, nums, parties);
        State s = _states[lease].sync(Nums.wrap(nums).window());
        if (!s.isIn(Phase.Active)) revert Escrow_WrongPhase(lease, s.status());
        s = _extended(s, Nums.wrap(nums), roots);
        if (!SignatureLib.isValid(provider, hashClaim(lease, uint16(s.claimed()), s.tip()), signature)) {
            revert Escrow_BadSignature(provider);
        }

        _states[lease] = s;
        emit Claimed(lease, uint16(s.claimed()), roots);
    }

    function _extended(State s, Nums nums, bytes32[] calldata roots) private view returns (State) {
        uint256 claimed = s.claimed();
        uint256 n = claimed + roots.length;
        uint256 highest = s.accepted() + MAX_PENDING;
        if (highest > nums.end()) highest = nums.end();
        // No roots would restart the clock for nothing.
        if (n == claimed || n > highest) revert Escrow_BadIndex(n, claimed + 1, highest);
        return s.withClaimed(n).withTip(s.tip().extend(roots)).withTimeNow();
    }

    // ---------------------------------------------------------------- redeem, collect

    /// @inheritdoc IEscrow
    function redeem(Redemption calldata item) external {
        Reason reason = _redeem(item);
        if (reason != Reason.Ok) revert Escrow_Refused(reason);
    }

    /// @inheritdoc IEscrow
    function redeemBatch(Redemption[] calldata items) external returns (Reason[] memory reasons) {
        reasons = new Reason[](items.length);
        for (uint256 i; i < items.length; ++i) {
            Reason reason = _redeem(items[i]);
            if (reason != Reason.Ok) {
                reasons[i] = reason;
                emit Skipped(i, reason);
            }
        }
    }

    /// @dev Refuses with a Reason and no effect.
    function _redeem(Redemption calldata item) private returns (Reason) {
        Terms calldata terms = item.terms;
        Nums nums = terms.unpacked();
        bytes32 lease = terms.id();
        State s = _states[lease].sync(nums.window());
        uint256 n = item.approval.n;
        bool last = item.approval.last && msg.sender == terms.provider;
        if (!s.isLive()) return Reason.LeaseNotLive;
        if (n < s.claimed() || (n == s.accepted() && !last)) return Reason.IndexTooLow;
        if (n > nums.end()) return Reason.IndexTooHigh;
        if (!_approved(terms.parties.approver, hashApproval(lease, item.approval), item.signature)) {
            return Reason.ApprovalSignatureInvalid;
        }

        // An Approval of what is accepted already closes, and changes nothing else: not the tip either.
        if (n != s.accepted()) {
            s = s.withAccepted(n).withClaimed(n).withTip(item.approval.tip);
            s = s.isIn(Phase.Active) ? s.withTimeNow() : s.without(StateLib.LATE);
            emit Approved(lease, uint16(n), item.approval.tip);
        } else if (n != s.settled()) {
            emit Settled(lease, uint16(n));
        }
        _payAccepted(terms, lease, s, last);
        return Reason.Ok;
    }

    /// @dev By a key only: a contract could take back what it signed.
    function _approved(address approver, bytes32 digest, bytes calldata signature) private pure returns (bool) {
        address signer = SignatureLib.recover(digest, signature);
        return signer == approver && signer != address(0);
    }

    /// @inheritdoc IEscrow
    function collect(Terms calldata terms) external {
        Nums nums = terms.unpacked();
        bytes32 lease = terms.id();
        State s = _states[lease].sync(nums.window());
        if (!s.isLive() && !s.isIn(Phase.Challenged)) revert Escrow_WrongPhase(lease, s.status());
        uint256 n = s.accepted();
        if (n == s.settled()) revert Escrow_NothingPending(lease);

        emit Settled(lease, uint16(n));
        _payAccepted(terms, lease, s, false);
    }

    // ---------------------------------------------------------------- end, close

    /// @inheritdoc IEscrow
    function end(Terms calldata terms) external {
        Nums nums = terms.unpacked();
        bytes32 lease = terms.id();
        State s = _states[lease].sync(nums.window());
        if (s.isIn(Phase.Closed)) {
            if (msg.sender != terms.parties.client) revert Escrow_NotAllowed(msg.sender);
            _states[lease] = State.wrap(0);
            emit Ended(lease, msg.sender, uint8(Phase.None));
            return;
        }
        if (!s.isIn(Phase.Active)) revert Escrow_WrongPhase(lease, s.status());
        // Who has a claim pending is not silent: a window longer than the timeout has to pass first.
        uint256 silentFrom = s.t() + nums.timeout();
        if (s.isPending() && nums.window() > nums.timeout()) silentFrom = s.t() + nums.window();
        bool late = block.timestamp >= silentFrom;
        if (!late && msg.sender != terms.provider && msg.sender != terms.parties.client) {
            revert Escrow_TooEarly(block.timestamp, silentFrom);
        }

        s = s.withPhase(Phase.Closing).withTimeNow();
        if (late) s = s.with(StateLib.LATE);
        if (msg.sender == terms.parties.client) s = s.with(StateLib.BY_CLIENT);
        _states[lease] = s;
        _accounts[terms.provider] = _accounts[terms.provider].deactivate();
        emit Ended(lease, msg.sender, s.status());
    }

    /// @inheritdoc IEscrow
    function close(Terms calldata terms) external {
        Nums nums = terms.unpacked();
        bytes32 lease = terms.id();
        State s = _states[lease].sync(nums.window());
        if (!s.isIn(Phase.Closing)) revert Escrow_WrongPhase(lease, s.status());
        uint256 allowedFrom = s.t() + nums.window();
        if (block.timestamp < allowedFrom) revert Escrow_TooEarly(block.timestamp, allowedFrom);

        // The window that has passed is the pending claim's too, so nothing is pending any more.
        uint256 stake = terms.parties.stake;
        uint256 penalty;
        if (s.accepted() == nums.end()) {
            emit Settled(lease, uint16(s.accepted()));
        } else if (s.has(StateLib.LATE)) {
            penalty = nums.price() < stake ? nums.price() : stake;
        }
        _exit(terms, lease, s, stake - penalty, penalty);
    }

    // ---------------------------------------------------------------- challenge, resolve

    /// @inheritdoc IEscrow
    function challenge(
        Terms calldata terms,
        Rules calldata rules,
        bytes20 acceptedTip,
        bytes32[] calldata roots,
        uint16 k,
        uint8 ground
    ) external {
        bytes32 lease = terms.id();
        State s = _states[lease];
        uint256 pending = _requireChallengeable(terms, lease, s);
        _requireRules(terms, rules);
        if (ground > 1) revert Escrow_BadIndex(ground, 0, 1);
        if (roots.length != pending) revert Escrow_BadIndex(roots.length, pending, pending);
        if (k <= s.accepted() || k > s.claimed()) revert Escrow_BadIndex(k, s.accepted() + 1, s.claimed());

        Question memory question;
        question.lease = lease;
        question.job = terms.parties.job;
        question.rules = terms.parties.rules;
        question.provider = terms.provider;
        question.challenger = msg.sender;
        question.k = k;
        question.ground = ground;
        (question.before, question.claimed) = _stretch(acceptedTip, roots, k - s.accepted() - 1, s.tip());

        uint256 bond = rules.arbiterFee + terms.unpacked().price() * pending;
        _debit(msg.sender, bond);
        question.id = _file(lease, bond, s.tip());
        if (s.isIn(Phase.Closing)) s = s.with(StateLib.FROM_CLOSING);
        _states[lease] = s.withPhase(Phase.Challenged).withTip(acceptedTip).withTimeNow();
        emit Challenged(lease, question.id, msg.sender, k, acceptedTip, question.claimed, ground, bond);

        IArbiter(rules.arbiter).open(question);
    }

    /// @return how many claimed checkpoints are neither accepted nor out of reach
    function _requireChallengeable(Terms calldata terms, bytes32 lease, State s) private view returns (uint256) {
        if (!s.isLive()) revert Escrow_WrongPhase(lease, s.status());
        if (!s.isPending()) revert Escrow_NothingPending(lease);
        uint256 acceptedFrom = s.t() + terms.unpacked().window();
        if (block.timestamp >= acceptedFrom) revert Escrow_TooLate(block.timestamp, acceptedFrom - 1);
        return s.claimed() - s.accepted();
    }

    /// @return before the tip before root `index`, left aligned
    /// @return root the root itself
    function _stretch(bytes20 tip, bytes32[] calldata roots, uint256 index, bytes20 claimedTip)
        private
        pure
        returns (bytes32 before, bytes32 root)
    {
        tip = tip.extend(roots[:index]);
        (before, root) = (tip, roots[index]);
        tip = tip.extend(roots[index:]);
        if (tip != claimedTip) revert Escrow_TipMismatch(claimedTip, tip);
    }

    function _file(bytes32 lease, uint256 bond, bytes20 claimedTip) private returns (bytes32) {
        uint64 number = ++_disputeCount;
        _disputes[lease] = Dispute({challenger: msg.sender, bond: uint96(bond), claimedTip: claimedTip, number: number});
        return _disputeId(number);
    }

    /// @inheritdoc IEscrow
    function resolve(Terms calldata terms, Rules calldata rules) external {
        bytes32 lease = terms.id();
        State s = _states[lease];
        if (!s.isIn(Phase.Challenged)) revert Escrow_WrongPhase(lease, s.status());
        _requireRules(terms, rules);
        Dispute memory d = _disputes[lease];
        bytes32 id = _disputeId(d.number);
        uint256 verdict = _verdict(rules.arbiter, id);
        if (verdict == 0 && block.timestamp < s.t() + rules.arbiterTimeout) {
            revert Escrow_NoVerdict(id, s.t() + rules.arbiterTimeout);
        }

        delete _disputes[lease];
        emit Resolved(lease, id, uint8(verdict));
        uint256 fee = rules.arbiterFee;
        uint256 stake = terms.parties.stake;
        if (verdict == VERDICT_TRUE) {
            s = s.withPhase(s.has(StateLib.FROM_CLOSING) ? Phase.Closing : Phase.Active);
            _states[lease] = s.without(StateLib.FROM_CLOSING).withTip(d.claimedTip).withTimeNow();
            _credit(rules.arbiter, fee);
            _credit(terms.provider, d.bond - fee);
        } else if (verdict == VERDICT_FALSE) {
            uint256 reward = (stake - fee) / REWARD_DIVISOR;
            _credit(rules.arbiter, fee);
            _credit(d.challenger, d.bond + reward);
            _exit(terms, lease, s, 0, stake - fee - reward);
        } else {
            _credit(d.challenger, fee);
            _exit(terms, lease, s, stake + d.bond - fee, 0);
        }
    }

    /// @return 1 true, 2 false, 0 anything else that the arbiter does
    function _verdict(address arbiter, bytes32 id) private view returns (uint256) {
        // Else a caller could starve the call below and pass a spoken verdict off as silence.
        if (gasleft() < VERDICT_GAS_FLOOR) revert Escrow_GasTooLow(gasleft(), VERDICT_GAS_FLOOR);
        bytes memory input = abi.encodeCall(IArbiter.verdict, (id));
        uint256 gasLimit = VERDICT_GAS;
        uint256 answer;
        // In assembly, because Solidity would copy all that the arbiter returns.
        assembly ("memory-safe") {
            let success := staticcall(gasLimit, arbiter, add(input, 0x20), mload(input), 0x00, 0x20)
            if and(success, gt(returndatasize(), 0x1f)) { answer := mload(0x00) }
        }
        return answer == VERDICT_TRUE || answer == VERDICT_FALSE ? answer : 0;
    }

    function _requireRules(Terms calldata terms, Rules calldata rules) private pure {
        bytes32 expected = terms.parties.rules;
        bytes32 got = rules.hash();
        if (got != expected) revert Escrow_RulesMismatch(expected, got);
    }

    function _disputeId(uint256 number) private view returns (bytes32) {
        return keccak256(abi.encode(_chainId, address(this), number));
    }

    // ---------------------------------------------------------------- money

    /// @dev Pays what is accepted. The lease is over if that was the rest of it, or if it stops here.
    function _payAccepted(Terms calldata terms, bytes32 lease, State s, bool stop) private {
        uint256 n = s.accepted();
        if (stop || n == terms.unpacked().end()) {
            _exit(terms, lease, s, terms.parties.stake, 0);
        } else {
            _states[lease] = s.withSettled(n);
            _pay(terms, n - s.settled(), 0, false);
        }
    }

    /// @dev Every exit: pays what is accepted, refunds the rest, gives out the stake, and frees the slot or leaves it
    /// Closed for the next lease of the same Bid.
    function _exit(Terms calldata terms, bytes32 lease, State s, uint256 toProvider, uint256 stakeToClient) private {
        Nums nums = terms.unpacked();
        uint256 n = s.accepted();
        uint256 rest = nums.end() - n;
        bool continuable = !s.has(StateLib.BY_CLIENT) && (rest != 0 || s.has(StateLib.MORE));
        if (continuable) _states[lease] = s.asClosed();
        else _states[lease] = State.wrap(0);

        _pay(terms, n - s.settled(), toProvider, s.isActive());
        _credit(terms.parties.client, rest * (nums.price() + nums.fee()) + stakeToClient);
        if (rest != 0 || continuable) emit Closed(lease, uint16(n), stakeToClient, continuable);
    }

    /// @dev Pays `count` checkpoints, and the provider `extra` in the same write.
    function _pay(Terms calldata terms, uint256 count, uint256 extra, bool deactivate) private {
        Nums nums = terms.unpacked();
        Account provider = _accounts[terms.provider].credit(nums.price() * count + extra);
        _accounts[terms.provider] = deactivate ? provider.deactivate() : provider;
        _credit(terms.parties.feeTo, nums.fee() * count);
    }

    function _credit(address owner, uint256 amount) private {
        if (amount != 0) _accounts[owner] = _accounts[owner].credit(amount);
    }

    function _debit(address owner, uint256 amount) private {
        Account a = _accounts[owner];
        if (amount > a.free()) revert Escrow_BalanceShort(owner, a.free(), amount);
        _accounts[owner] = a.debit(amount);
    }

    // ---------------------------------------------------------------- views

    /// @inheritdoc IEscrow
    function token() external view returns (address) {
        return address(_token);
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
    function account(address owner) external view returns (uint96 free, uint16 active, uint32 page, uint112 used) {
        Account a = _accounts[owner];
        return (uint96(a.free()), uint16(a.active()), uint32(a.page()), a.used());
    }

    /// @inheritdoc IEscrow
    function state(bytes32 lease)
        external
        view
        returns (uint8 status, uint16 settled, uint16 accepted, uint16 claimed, uint40 t, bytes20 tip)
    {
        State s = _states[lease];
        return (s.status(), uint16(s.settled()), uint16(s.accepted()), uint16(s.claimed()), uint40(s.t()), s.tip());
    }

    /// @inheritdoc IEscrow
    function dispute(bytes32 lease)
        external
        view
        returns (bytes32 id, address challenger, uint96 bond, bytes20 claimedTip)
    {
        Dispute memory d = _disputes[lease];
        id = d.number == 0 ? bytes32(0) : _disputeId(d.number);
        return (id, d.challenger, d.bond, d.claimedTip);
    }

    /// @inheritdoc IEscrow
    function leaseId(Terms calldata terms) external pure returns (bytes32) {
        return terms.id();
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

    /// @inheritdoc IEscrow
    function hashClaim(bytes32 lease, uint16 n, bytes20 tip) public view returns (bytes32) {
        return _hashTypedDataV4(OrderLib.hashClaim(lease, n, tip));
    }

    /// @inheritdoc IEscrow
    function hashApproval(bytes32 lease, Approval calldata approval) public view returns (bytes32) {
        return _hashTypedDataV4(OrderLib.hashApproval(lease, approval));
    }
}
