// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.28;

import {Approval, Ask, Bid, Rules} from "../interfaces/IEscrow.sol";

/// @dev EIP-712 struct hashes. Orders are static words, so their ABI encoding is their EIP-712 encoding.
library OrderLib {
    bytes32 internal constant RULES_TYPEHASH = keccak256(
        "Rules(address arbiter,uint96 arbiterFee,uint32 arbiterTimeout,uint32 checkpointTimeout,uint32 window,bytes32 verification)"
    );
    bytes32 internal constant BID_TYPEHASH = keccak256(
        "Bid(address client,address matcher,address approver,bytes32 job,bytes32 rules,bytes20 startTip,uint16 checkpoints,uint64 units,uint96 maxPrice,uint64 fee,uint96 stake,uint40 validUntil,uint40 nonce)"
    );
    bytes32 internal constant ASK_TYPEHASH = keccak256(
        "Ask(address provider,address matcher,bytes32 resources,bytes32 rules,uint96 pricePerHour,uint64 unitsPerHour,uint96 maxStake,uint16 maxActive,uint16 maxCheckpoints,uint40 validFrom,uint40 validUntil,uint32 page)"
    );
    bytes32 internal constant CLAIM_TYPEHASH = keccak256("Claim(bytes32 lease,uint16 n,bytes20 tip)");
    bytes32 internal constant APPROVAL_TYPEHASH = keccak256("Approval(bytes32 lease,uint16 n,bytes20 tip,bool last)");

    /// @dev Copies an order's words as they stand. Reading a field of the copy cuts it to its type, so bits beyond
    /// that count for nothing but the hash.
    function copyTo(Rules calldata from, Rules memory to) internal pure {
        assembly ("memory-safe") {
            calldatacopy(to, from, 0xc0)
        }
    }

    function copyTo(Bid calldata from, Bid memory to) internal pure {
        assembly ("memory-safe") {
            calldatacopy(to, from, 0x1a0)
        }
    }

    function copyTo(Ask calldata from, Ask memory to) internal pure {
        assembly ("memory-safe") {
            calldatacopy(to, from, 0x180)
        }
    }

    function hash(Rules memory rules) internal pure returns (bytes32) {
        uint256 pointer;
        assembly ("memory-safe") {
            pointer := rules
        }
        return _hash(RULES_TYPEHASH, pointer, 0xc0);
    }

    function hash(Bid memory bid) internal pure returns (bytes32) {
        uint256 pointer;
        assembly ("memory-safe") {
            pointer := bid
        }
        return _hash(BID_TYPEHASH, pointer, 0x1a0);
    }

    function hash(Ask memory ask) internal pure returns (bytes32) {
        uint256 pointer;
        assembly ("memory-safe") {
            pointer := ask
        }
        return _hash(ASK_TYPEHASH, pointer, 0x180);
    }

    /// @dev The type hash stands in the word before the struct for as long as it takes.
    function _hash(bytes32 typeHash, uint256 pointer, uint256 length) private pure returns (bytes32 result) {
        assembly ("memory-safe") {
            let start := sub(pointer, 0x20)
            let word := mload(start)
            mstore(start, typeHash)
            result := keccak256(start, add(length, 0x20))
            mstore(start, word)
        }
    }

    function hashClaim(bytes32 lease, uint16 n, bytes20 tip) internal pure returns (bytes32) {
        return keccak256(abi.encode(CLAIM_TYPEHASH, lease, n, tip));
    }

    function hashApproval(bytes32 lease, Approval calldata approval) internal pure returns (bytes32) {
        return keccak256(abi.encode(APPROVAL_TYPEHASH, lease, approval.n, approval.tip, approval.last));
    }
}
