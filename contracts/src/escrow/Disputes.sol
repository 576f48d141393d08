// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.28;

import {IArbiter, Question} from "../interfaces/IArbiter.sol";
import {IEscrow, Phase, Rules, Terms} from "../interfaces/IEscrow.sol";
import {OrderLib} from "../libraries/OrderLib.sol";
import {State, StateLib} from "../libraries/StateLib.sol";
import {TermsLib, TipLib} from "../libraries/TermsLib.sol";
import {Leases} from "./Leases.sol";

/// @dev Two slots, while a lease is Challenged.
struct Dispute {
    address challenger;
    uint96 bond;
    bytes20 claimedTip;
    /// Counts from 1 over all disputes of this escrow.
    uint64 number;
}

/// @dev A pending claim is disputed, the arbiter that both orders signed decides.
abstract contract Disputes is Leases {
    using OrderLib for Rules;
    using TermsLib for Terms;
    using TipLib for bytes20;

    /// An arbiter may spend this on a verdict; `resolve` must still have the floor when it asks.
    uint256 private constant VERDICT_GAS = 100_000;
    uint256 private constant VERDICT_GAS_FLOOR = 110_000;
    uint256 private constant VERDICT_TRUE = 1;
    uint256 private constant VERDICT_FALSE = 2;
    /// The challenger's part of a convicted stake, after the arbiter's fee: one in five.
    uint256 private constant REWARD_DIVISOR = 5;

    /// The chain at deployment: a dispute keeps its id through a fork.
    uint256 private immutable _chainId = block.chainid;

    mapping(bytes32 lease => Dispute) private _disputes;
    uint64 private _disputeCount;

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
        Rules memory agreed = _agreed(terms, rules);
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

        uint256 bond = agreed.arbiterFee + terms.unpacked().price() * pending;
        _debit(msg.sender, bond);
        question.id = _file(lease, bond, s.tip());
        if (s.isIn(Phase.Closing)) s = s.with(StateLib.FROM_CLOSING);
        _states[lease] = s.withPhase(Phase.Challenged).withTip(acceptedTip).withTimeNow();
        emit Challenged(lease, question.id, msg.sender, k, acceptedTip, question.claimed, ground, bond);

        IArbiter(agreed.arbiter).open(question);
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
        Rules memory agreed = _agreed(terms, rules);
        Dispute memory d = _disputes[lease];
        bytes32 id = _disputeId(d.number);
        uint256 verdict = _verdict(agreed.arbiter, id);
        if (verdict == 0 && block.timestamp < s.t() + agreed.arbiterTimeout) {
            revert Escrow_NoVerdict(id, s.t() + agreed.arbiterTimeout);
        }

        delete _disputes[lease];
        emit Resolved(lease, id, uint8(verdict));
        uint256 fee = agreed.arbiterFee;
        uint256 stake = terms.parties.stake;
        if (verdict == VERDICT_TRUE) {
            s = s.withPhase(s.has(StateLib.FROM_CLOSING) ? Phase.Closing : Phase.Active);
            _states[lease] = s.without(StateLib.FROM_CLOSING).withTip(d.claimedTip).withTimeNow();
            _credit(agreed.arbiter, fee);
            _credit(terms.provider, d.bond - fee);
        } else if (verdict == VERDICT_FALSE) {
            uint256 reward = (stake - fee) / REWARD_DIVISOR;
            _credit(agreed.arbiter, fee);
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

    /// @dev The rules that both orders signed, read as `open` read them: any that could be opened can be disputed.
    function _agreed(Terms calldata terms, Rules calldata source) private pure returns (Rules memory rules) {
        source.copyTo(rules);
        bytes32 expected = terms.parties.rules;
        bytes32 got = rules.hash();
        if (got != expected) revert Escrow_RulesMismatch(expected, got);
    }

    function _disputeId(uint256 number) private view returns (bytes32) {
        return keccak256(abi.encode(_chainId, address(this), number));
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
}
