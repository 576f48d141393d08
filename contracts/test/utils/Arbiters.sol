// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.28;

import {IArbiter, Question} from "../../src/interfaces/IArbiter.sol";
import {IEscrow, Rules, Terms} from "../../src/interfaces/IEscrow.sol";

/// @notice Says what the test told it to, in the way that the test told it to.
contract ScriptedArbiter is IArbiter {
    enum Mood {
        Plain,
        Reverts,
        EatsGas,
        AnswersShort,
        AnswersLong,
        AnswersFive,
        AnswersDirty
    }

    Mood public mood;
    bool public refuses;
    uint256 public asked;
    Question private _last;
    mapping(bytes32 id => uint8) public verdicts;

    function setMood(Mood newMood) external {
        mood = newMood;
    }

    function setRefuses(bool yes) external {
        refuses = yes;
    }

    function rule(bytes32 id, uint8 newVerdict) external {
        verdicts[id] = newVerdict;
    }

    function withdraw(IEscrow escrow, address to, uint256 amount) external {
        escrow.withdraw(to, amount);
    }

    function open(Question calldata question) public virtual {
        require(!refuses, "not this one");
        _last = question;
        ++asked;
    }

    function last() external view returns (Question memory) {
        return _last;
    }

    function verdict(bytes32 id) external view returns (uint8) {
        Mood m = mood;
        if (m == Mood.Reverts) revert("no");
        if (m == Mood.EatsGas) while (true) {}
        uint256 answer = verdicts[id];
        uint256 size = 32;
        if (m == Mood.AnswersShort) size = 31;
        if (m == Mood.AnswersLong) size = 20_000;
        if (m == Mood.AnswersFive) answer = 5;
        if (m == Mood.AnswersDirty) answer |= 1 << 8;
        assembly ("memory-safe") {
            let p := mload(0x40)
            mstore(p, answer)
            return(p, size)
        }
    }
}

/// @notice Calls whoever was named, once, within `open`.
contract RestlessArbiter is ScriptedArbiter {
    address private _target;
    bytes private _input;

    /// @param target 0: nobody
    function callBack(address target, bytes calldata input) external {
        (_target, _input) = (target, input);
    }

    function open(Question calldata question) public override {
        super.open(question);
        address target = _target;
        if (target == address(0)) return;
        delete _target;
        (bool ok, bytes memory output) = target.call(_input);
        assembly ("memory-safe") {
            if iszero(ok) { revert(add(output, 0x20), mload(output)) }
        }
    }
}

/// @notice Rules on a question within `open`, and has it resolved there and then.
contract HastyArbiter is ScriptedArbiter {
    IEscrow public immutable escrow;
    Terms public terms;
    Rules public rules;
    uint8 public opinion;

    constructor(IEscrow escrow_) {
        escrow = escrow_;
    }

    function prepare(Terms calldata terms_, Rules calldata rules_, uint8 opinion_) external {
        terms = terms_;
        rules = rules_;
        opinion = opinion_;
    }

    function open(Question calldata question) public override {
        this.rule(question.id, opinion);
        escrow.resolve(terms, rules);
    }
}
