// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.28;

import {Approval, Ask, Bid, Rules} from "../interfaces/IEscrow.sol";

/// @dev EIP-712 struct hashes. The big orders are all static words, so their ABI encoding in calldata is their
/// EIP-712 encoding, and is hashed as it stands. Reading a field checks its range; the escrow reads each one.
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

    function hash(Rules calldata rules) internal pure returns (bytes32 result) {
        bytes32 typeHash = RULES_TYPEHASH;
        assembly ("memory-safe") {
            let p := mload(0x40)
            mstore(p, typeHash)
            calldatacopy(add(p, 0x20), rules, 0xc0)
            result := keccak256(p, 0xe0)
        }
    }

    function hash(Bid calldata bid) internal pure returns (bytes32 result) {
        bytes32 typeHash = BID_TYPEHASH;
        assembly ("memory-safe") {
            let p := mload(0x40)
            mstore(p, typeHash)
            calldatacopy(add(p, 0x20), bid, 0x1a0)
            result := keccak256(p, 0x1c0)
        }
    }

    function hash(Ask calldata ask) internal pure returns (bytes32 result) {
        bytes32 typeHash = ASK_TYPEHASH;
        assembly ("memory-safe") {
            let p := mload(0x40)
            mstore(p, typeHash)
            calldatacopy(add(p, 0x20), ask, 0x180)
            result := keccak256(p, 0x1a0)
        }
    }

    function hashClaim(bytes32 lease, uint16 n, bytes20 tip) internal pure returns (bytes32) {
        return keccak256(abi.encode(CLAIM_TYPEHASH, lease, n, tip));
    }

    function hashApproval(bytes32 lease, Approval calldata approval) internal pure returns (bytes32) {
        return keccak256(abi.encode(APPROVAL_TYPEHASH, lease, approval.n, approval.tip, approval.last));
    }
}
