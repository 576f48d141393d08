// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.28;

import {IERC20} from "@openzeppelin/contracts/token/ERC20/IERC20.sol";

import {Balances} from "./escrow/Balances.sol";
import {Disputes} from "./escrow/Disputes.sol";
import {Openings} from "./escrow/Openings.sol";
import {Bounds, IEscrow, Phase, Reason, Redemption, Terms} from "./interfaces/IEscrow.sol";
import {SignatureLib} from "./libraries/SignatureLib.sol";
import {State, StateLib} from "./libraries/StateLib.sol";
import {Nums, TermsLib, TipLib} from "./libraries/TermsLib.sol";

/// @title Escrow
/// @notice What is done on a lease: claims, approvals, ends. Opening one is in Openings, disputes are in Disputes; both
/// stand on Leases (states, and payment at every exit), and that on Balances.
/// @dev Safe without a lock against reentrancy: the token is called in deposits and withdrawals only, the arbiter
/// last in `challenge`, and all else outside is a static call. Balances are written one after the other, each read
/// anew, because client, provider, feeTo, arbiter and challenger may be one and the same account.
contract Escrow is Openings, Disputes {
    using TermsLib for Terms;
    using TipLib for bytes20;

    /// A challenge brings all pending roots: no claim may outgrow what one transaction can carry.
    uint256 private constant MAX_PENDING = 1024;

    constructor(IERC20 token_, Bounds memory b) Balances(token_) Openings(b) {}

    // ---------------------------------------------------------------- claim

    /// @inheritdoc IEscrow
    function claim(
        address provider,
        uint256 nums,
        uint96 askPrice,
        bytes32 parties,
        uint16 n,
        bytes20 tip,
        bytes32[] calldata roots
    ) external {
        bytes32 lease = TermsLib.id(provider, nums, askPrice, parties);
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
        uint96 askPrice,
        bytes32 parties,
        bytes32[] calldata roots,
        bytes calldata signature
    ) external {
        bytes32 lease = TermsLib.id(provider, nums, askPrice, parties);
        State s = _states[lease].sync(Nums.wrap(nums).window());
        if (!s.isIn(Phase.Active)) revert Escrow_WrongPhase(lease, s.status());
        s = _extended(s, Nums.wrap(nums), roots);
        if (!SignatureLib.isValid(provider, hashClaim(lease, uint16(s.claimed()), s.tip()), signature)) {
            revert Escrow_BadSignature(provider);
        }

        _states[lease] = s;
        emit Claimed(lease, uint16(s.claimed()), roots);
    }

    /// @dev Sums can't overflow: indices have 16 bits, the length of an array in calldata 64.
    function _extended(State s, Nums nums, bytes32[] calldata roots) private view returns (State) {
        unchecked {
            uint256 claimed = s.claimed();
            uint256 n = claimed + roots.length;
            uint256 highest = s.accepted() + MAX_PENDING;
            if (highest > nums.end()) highest = nums.end();
            // No roots would restart the clock for nothing.
            if (n == claimed || n > highest) revert Escrow_BadIndex(n, claimed + 1, highest);
            return s.withClaimed(n).withTip(s.tip().extend(roots)).withTimeNow();
        }
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
        bool byClient = msg.sender == terms.parties.client;
        if (!s.isIn(Phase.Active)) {
            // Not Active: only the client, to have no other lease follow. The clock goes on.
            if (s.isIn(Phase.Closed)) {
                if (!byClient) revert Escrow_NotAllowed(msg.sender);
                s = State.wrap(0);
            } else {
                bool may = byClient && !s.isIn(Phase.None) && !s.has(StateLib.BY_CLIENT);
                if (!may) revert Escrow_WrongPhase(lease, s.status());
                s = s.with(StateLib.BY_CLIENT);
            }
            _states[lease] = s;
            emit Ended(lease, msg.sender, s.status());
            return;
        }
        // Who has a claim pending is not silent: a window longer than the timeout has to pass first.
        uint256 silentFrom = s.t() + nums.timeout();
        if (s.isPending() && nums.window() > nums.timeout()) silentFrom = s.t() + nums.window();
        bool late = block.timestamp >= silentFrom;
        if (!late && msg.sender != terms.provider && !byClient) {
            revert Escrow_TooEarly(block.timestamp, silentFrom);
        }

        s = s.withPhase(Phase.Closing).withTimeNow();
        if (late) s = s.with(StateLib.LATE);
        if (byClient) s = s.with(StateLib.BY_CLIENT);
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
            // What the provider named, not what client and matcher made of it.
            penalty = terms.askPrice < stake ? terms.askPrice : stake;
        }
        _exit(terms, lease, s, stake - penalty, penalty);
    }
}
