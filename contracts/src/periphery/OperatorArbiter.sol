// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.28;

import {IArbiter, Question} from "../interfaces/IArbiter.sol";
import {IEscrow} from "../interfaces/IEscrow.sol";

/// @title One trusted operator as arbiter
/// @notice Whoever holds the operator's key decides every dispute. For devnets, and for parties who trust that person.
contract OperatorArbiter is IArbiter {
    event Opened(bytes32 indexed id, Question question);
    event Ruled(bytes32 indexed id, uint8 verdict);

    error OperatorArbiter_NotEscrow(address caller);
    error OperatorArbiter_NotOperator(address caller);
    error OperatorArbiter_UnknownQuestion(bytes32 id);
    error OperatorArbiter_AlreadyRuled(bytes32 id, uint8 verdict);
    error OperatorArbiter_BadVerdict(uint8 verdict);

    IEscrow public immutable escrow;
    address public immutable operator;

    /// @inheritdoc IArbiter
    mapping(bytes32 id => uint8) public verdict;
    mapping(bytes32 id => bool) public isOpen;

    modifier onlyOperator() {
        if (msg.sender != operator) revert OperatorArbiter_NotOperator(msg.sender);
        _;
    }

    constructor(IEscrow escrow_, address operator_) {
        escrow = escrow_;
        operator = operator_;
    }

    /// @inheritdoc IArbiter
    function open(Question calldata question) external {
        if (msg.sender != address(escrow)) revert OperatorArbiter_NotEscrow(msg.sender);

        isOpen[question.id] = true;
        emit Opened(question.id, question);
    }

    /// @notice Decides a question, once. 1: the claim is true. 2: it is false. 3: void. 4: unreproducible.
    function rule(bytes32 id, uint8 newVerdict) external onlyOperator {
        if (newVerdict == 0 || newVerdict > 4) revert OperatorArbiter_BadVerdict(newVerdict);
        if (verdict[id] != 0) revert OperatorArbiter_AlreadyRuled(id, verdict[id]);
        if (!isOpen[id]) revert OperatorArbiter_UnknownQuestion(id);

        delete isOpen[id];
        verdict[id] = newVerdict;
        emit Ruled(id, newVerdict);
    }

    /// @notice Moves fees earned out of the escrow.
    function withdraw(address to, uint256 amount) external onlyOperator {
        escrow.withdraw(to, amount);
    }
}
