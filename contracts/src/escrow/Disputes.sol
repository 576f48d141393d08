// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.28;

import {EIP712} from "@openzeppelin/contracts/utils/cryptography/EIP712.sol";

import {IArbiter, Question} from "../interfaces/IArbiter.sol";
import {Approval, IEscrow, Phase, Reason, Redemption, Rules, Terms} from "../interfaces/IEscrow.sol";
import {OrderLib} from "../libraries/OrderLib.sol";
import {SignatureLib} from "../libraries/SignatureLib.sol";
import {State, StateLib} from "../libraries/StateLib.sol";
import {TermsLib, TipLib} from "../libraries/TermsLib.sol";
import {Leases} from "./Leases.sol";

/// @dev Two slots while a lease is Challenged; three if by a signed Claim.
struct Dispute {
    address challenger;
    uint96 bond;
    /// Where the pending claim leads to.
    bytes20 claimedTip;
    /// Counts from 1 over all disputes of this escrow.
    uint64 number;
    uint16 k;
    uint8 ground;
    /// Where the signed Claim leads to. 0: the pending claim itself is disputed.
    bytes20 signedTip;
}

/// @dev A claim is disputed, the arbiter that both orders signed decides.
abstract contract Disputes is EIP712, Leases {
    using OrderLib for Rules;
    using TermsLib for Terms;
    using TipLib for bytes20;

    /// An arbiter may spend this on a verdict; `resolve` must still have the floor when it asks.
    uint256 private constant VERDICT_GAS = 100_000;
    uint256 private constant VERDICT_GAS_FLOOR = 110_000;
    uint256 private constant VERDICT_TRUE = 1;
    uint256 private constant VERDICT_FALSE = 2;
    uint256 private constant VERDICT_VOID = 3;
    uint256 private constant VERDICT_UNREPRODUCIBLE = 4;
    /// Not an arbiter's: the approver accepted what was disputed.
    uint8 private constant WITHDRAWN = 5;
    /// The challenger's part of a convicted stake, after the arbiter's fee: one in five.
    uint256 private constant REWARD_DIVISOR = 5;
    /// Whose balance nobody can move.
    address private constant NOBODY = address(0);

    /// The chain at deployment: a dispute keeps its id through a fork.
    uint256 private immutable _chainId = block.chainid;

    mapping(bytes32 lease => Dispute) private _disputes;
    uint64 private _disputeCount;

    // ---------------------------------------------------------------- challenge

    /// @inheritdoc IEscrow
    function challenge(
        Terms calldata terms,
        Rules calldata rules,
        bytes20 acceptedTip,
        bytes32[] calldata roots,
        uint16 k,
        uint8 ground
    ) external {
        Question memory question = _question(terms, k, ground);
        State s = _states[question.lease];
        if (!s.isLive()) revert Escrow_WrongPhase(question.lease, s.status());
        if (!s.isPending()) revert Escrow_NothingPending(question.lease);
        _requireInWindow(terms, s);

        _requirePending(s, acceptedTip, s.tip(), roots);
        _challenge(terms, rules, s, acceptedTip, roots, question, 0);
    }

    /// @inheritdoc IEscrow
    function challengeSigned(
        Terms calldata terms,
        Rules calldata rules,
        bytes20 acceptedTip,
        bytes32[] calldata pending,
        bytes32[] calldata roots,
        uint16 k,
        uint8 ground,
        bytes calldata signature
    ) external {
        Question memory question = _question(terms, k, ground);
        State s = _states[question.lease].sync(terms.unpacked().window());
        if (!s.isLive()) revert Escrow_WrongPhase(question.lease, s.status());
        if (s.isIn(Phase.Closing)) _requireInWindow(terms, s);

        _requirePending(s, acceptedTip, s.tip(), pending);
        bytes20 tip = _signedTip(terms, question.lease, s, acceptedTip, roots, signature);
        _challenge(terms, rules, s, acceptedTip, roots, question, tip);
    }

    /// @dev All of it but the stretch.
    function _question(Terms calldata terms, uint16 k, uint8 ground) private view returns (Question memory question) {
        if (ground > 1) revert Escrow_BadIndex(ground, 0, 1);
        question.lease = terms.id();
        question.job = terms.parties.job;
        question.rules = terms.parties.rules;
        question.provider = terms.provider;
        question.challenger = msg.sender;
        question.k = k;
        question.ground = ground;
    }

    /// @return tip that the provider signed for these roots
    function _signedTip(
        Terms calldata terms,
        bytes32 lease,
        State s,
        bytes20 acceptedTip,
        bytes32[] calldata roots,
        bytes calldata signature
    ) private view returns (bytes20 tip) {
        uint256 n = s.accepted() + roots.length;
        if (n > terms.unpacked().end()) revert Escrow_BadIndex(n, s.accepted() + 1, terms.unpacked().end());
        tip = acceptedTip.extend(roots);
        if (!SignatureLib.isValid(terms.provider, hashClaim(lease, uint16(n), tip), signature)) {
            revert Escrow_BadSignature(terms.provider);
        }
    }

    function _requireInWindow(Terms calldata terms, State s) private view {
        uint256 over = s.t() + terms.unpacked().window();
        if (block.timestamp >= over) revert Escrow_TooLate(block.timestamp, over - 1);
    }

    /// @dev That these are all pending roots, and lead from `from` to `to`.
    function _requirePending(State s, bytes20 from, bytes20 to, bytes32[] calldata roots) private pure {
        uint256 pending = s.claimed() - s.accepted();
        if (roots.length != pending) revert Escrow_BadIndex(roots.length, pending, pending);
        bytes20 got = from.extend(roots);
        if (got != to) revert Escrow_TipMismatch(to, got);
    }

    /// @dev The claim whose `roots` follow on `acceptedTip` is disputed.
    /// @param signedTip where they lead to if they are not the pending ones, else 0
    function _challenge(
        Terms calldata terms,
        Rules calldata rules,
        State s,
        bytes20 acceptedTip,
        bytes32[] calldata roots,
        Question memory question,
        bytes20 signedTip
    ) private {
        Rules memory agreed = _agreed(terms, rules);
        uint256 bond = agreed.arbiterFee + _atRisk(terms, s, roots.length);
        _ask(s.accepted(), acceptedTip, roots, question);
        _debit(msg.sender, bond);
        Dispute storage d = _disputes[question.lease];
        (d.challenger, d.bond) = (msg.sender, uint96(bond));
        (d.claimedTip, d.number, d.k, d.ground) = (s.tip(), ++_disputeCount, uint16(question.k), question.ground);
        if (signedTip != 0) d.signedTip = signedTip;
        question.id = _disputeId(question.lease, d);
        if (s.isIn(Phase.Closing)) s = s.with(StateLib.FROM_CLOSING);
        _states[question.lease] = s.withPhase(Phase.Challenged).withTip(acceptedTip).withTimeNow();
        _emitChallenged(question, acceptedTip, signedTip, bond, agreed);

        IArbiter(agreed.arbiter).open(question);
    }

    /// @dev Adds the stretch.
    function _ask(uint256 accepted, bytes20 acceptedTip, bytes32[] calldata roots, Question memory question)
        private
        pure
    {
        uint256 k = question.k;
        if (k <= accepted || k > accepted + roots.length) revert Escrow_BadIndex(k, accepted + 1, accepted + roots.length);
        question.before = acceptedTip.extend(roots[:k - accepted - 1]);
        question.claimed = roots[k - accepted - 1];
    }

    /// @dev On its own for builds without via-IR, whose stack is short.
    function _emitChallenged(
        Question memory question,
        bytes20 acceptedTip,
        bytes20 signedTip,
        uint256 bond,
        Rules memory agreed
    ) private {
        emit Challenged(
            question.lease,
            question.id,
            msg.sender,
            uint16(question.k),
            acceptedTip,
            question.claimed,
            question.ground,
            signedTip,
            bond,
            agreed.arbiter,
            agreed.arbiterFee
        );
    }

    /// @dev What a challenge can cost the provider, and its maker if it is wrong. A false claim costs no gas to sign: a
    /// party of the lease could be drained by it, so that one pays no more than what the claim itself puts at stake.
    function _atRisk(Terms calldata terms, State s, uint256 count) private view returns (uint256 amount) {
        uint256 pending = s.claimed() - s.accepted();
        amount = terms.unpacked().price() * (count > pending ? count : pending);
        bool party = msg.sender == terms.parties.client || msg.sender == terms.parties.approver;
        if (party && amount > terms.parties.stake) amount = terms.parties.stake;
    }

    // ---------------------------------------------------------------- redeem

    /// @inheritdoc IEscrow
    function redeemChallenged(Redemption calldata item, Rules calldata rules, bytes32[] calldata pending) external {
        Terms calldata terms = item.terms;
        bytes32 lease = terms.id();
        State s = _states[lease];
        if (!s.isIn(Phase.Challenged)) revert Escrow_WrongPhase(lease, s.status());
        uint256 n = item.approval.n;
        bytes20 tip = item.approval.tip;
        if (n <= s.accepted()) revert Escrow_Refused(Reason.IndexTooLow);
        if (n > terms.unpacked().end()) revert Escrow_Refused(Reason.IndexTooHigh);
        if (!_approved(terms.parties.approver, hashApproval(lease, item.approval), item.signature)) {
            revert Escrow_Refused(Reason.ApprovalSignatureInvalid);
        }

        Dispute storage d = _disputes[lease];
        bytes32 id = _disputeId(lease, d);
        if (n < s.claimed()) {
            // On the chain that is pending, so that what is beyond can stay pending on top of it.
            _requirePending(s, s.tip(), d.claimedTip, pending);
            bytes20 reached = s.tip().extend(pending[:n - s.accepted()]);
            if (reached != tip) revert Escrow_TipMismatch(reached, tip);
        } else {
            s = s.withClaimed(n);
            d.claimedTip = tip;
        }
        s = s.withAccepted(n).withTip(tip);
        if (s.has(StateLib.FROM_CLOSING)) s = s.without(StateLib.LATE);
        if (n >= d.k) {
            Rules memory agreed = _agreed(terms, rules);
            _credit(agreed.arbiter, agreed.arbiterFee);
            _credit(d.challenger, d.bond - agreed.arbiterFee);
            emit Resolved(lease, id, WITHDRAWN);
            s = _revived(lease, s);
        }
        emit Approved(lease, uint16(n), tip);
        _payAccepted(terms, lease, s, false);
    }

    /// @dev As before the challenge, with a whole window for what is pending. Forgets the dispute.
    function _revived(bytes32 lease, State s) private returns (State) {
        s = s.withPhase(s.has(StateLib.FROM_CLOSING) ? Phase.Closing : Phase.Active);
        s = s.without(StateLib.FROM_CLOSING).withTip(_disputes[lease].claimedTip).withTimeNow();
        delete _disputes[lease];
        return s;
    }

    /// @dev By a key only: a contract could take back what it signed.
    function _approved(address approver, bytes32 digest, bytes calldata signature) internal pure returns (bool) {
        address signer = SignatureLib.recover(digest, signature);
        return signer == approver && signer != address(0);
    }

    // ---------------------------------------------------------------- resolve

    /// @inheritdoc IEscrow
    function resolve(Terms calldata terms, Rules calldata rules) external {
        bytes32 lease = terms.id();
        State s = _states[lease];
        if (!s.isIn(Phase.Challenged)) revert Escrow_WrongPhase(lease, s.status());
        Rules memory agreed = _agreed(terms, rules);
        Dispute storage d = _disputes[lease];
        bytes32 id = _disputeId(lease, d);
        uint256 verdict = _verdict(agreed.arbiter, id);
        if (verdict == 0 && block.timestamp < s.t() + agreed.arbiterTimeout) {
            revert Escrow_NoVerdict(id, s.t() + agreed.arbiterTimeout);
        }

        emit Resolved(lease, id, uint8(verdict));
        uint256 fee = agreed.arbiterFee;
        uint256 bond = d.bond;
        address challenger = d.challenger;
        if (verdict == VERDICT_TRUE) {
            _states[lease] = _revived(lease, s);
            _credit(agreed.arbiter, fee);
            _credit(terms.provider, bond - fee);
            return;
        }

        delete _disputes[lease];
        uint256 toProvider;
        uint256 toClient;
        if (verdict == 0) {
            toProvider = terms.parties.stake + bond - fee;
            _credit(challenger, fee);
        } else {
            _credit(agreed.arbiter, fee);
            if (verdict == VERDICT_UNREPRODUCIBLE) {
                toProvider = terms.parties.stake;
                bond -= fee;
            } else {
                toClient = terms.parties.stake - fee;
                if (verdict == VERDICT_VOID) {
                    _credit(NOBODY, toClient);
                    toClient = 0;
                } else {
                    uint256 reward = toClient / REWARD_DIVISOR;
                    toClient -= reward;
                    bond += reward;
                }
            }
            _credit(challenger, bond);
        }
        _exit(terms, lease, s, toProvider, toClient);
    }

    /// @return 1 to 4, or 0 for anything else that the arbiter does
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
        return answer > VERDICT_UNREPRODUCIBLE ? 0 : answer;
    }

    /// @dev The rules that both orders signed, read as `open` read them: any that could be opened can be disputed.
    function _agreed(Terms calldata terms, Rules calldata source) private pure returns (Rules memory rules) {
        source.copyTo(rules);
        bytes32 expected = terms.parties.rules;
        bytes32 got = rules.hash();
        if (got != expected) revert Escrow_RulesMismatch(expected, got);
    }

    function _disputeId(bytes32 lease, Dispute storage d) private view returns (bytes32) {
        bytes20 tip = d.signedTip == 0 ? d.claimedTip : d.signedTip;
        return keccak256(abi.encode(_chainId, address(this), d.number, lease, tip, d.k, d.ground));
    }

    // ---------------------------------------------------------------- views

    /// @inheritdoc IEscrow
    function dispute(bytes32 lease)
        external
        view
        returns (bytes32 id, address challenger, uint96 bond, bytes20 claimedTip)
    {
        Dispute storage d = _disputes[lease];
        id = d.number == 0 ? bytes32(0) : _disputeId(lease, d);
        return (id, d.challenger, d.bond, d.claimedTip);
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
