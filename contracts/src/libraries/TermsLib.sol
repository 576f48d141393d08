// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.28;

import {Parties, Terms} from "../interfaces/IEscrow.sol";

/// start16 | end16 | window32 | timeout32 | price96 | fee64, the first in the highest bits.
type Nums is uint256;

using NumsLib for Nums global;

library NumsLib {
    function pack(uint256 start_, uint256 end_, uint256 window_, uint256 timeout_, uint256 price_, uint256 fee_)
        internal
        pure
        returns (Nums)
    {
        return Nums.wrap((start_ << 240) | (end_ << 224) | (window_ << 192) | (timeout_ << 160) | (price_ << 64) | fee_);
    }

    function start(Nums nums) internal pure returns (uint256) {
        return Nums.unwrap(nums) >> 240;
    }

    function end(Nums nums) internal pure returns (uint256) {
        return uint16(Nums.unwrap(nums) >> 224);
    }

    function window(Nums nums) internal pure returns (uint256) {
        return uint32(Nums.unwrap(nums) >> 192);
    }

    function timeout(Nums nums) internal pure returns (uint256) {
        return uint32(Nums.unwrap(nums) >> 160);
    }

    function price(Nums nums) internal pure returns (uint256) {
        return uint96(Nums.unwrap(nums) >> 64);
    }

    function fee(Nums nums) internal pure returns (uint256) {
        return uint64(Nums.unwrap(nums));
    }
}

/// @dev Ids of leases. Calldata is hashed as it stands: a word with dirty bits gives an id that no lease has.
library TermsLib {
    function id(Terms calldata terms) internal pure returns (bytes32) {
        return id(terms.provider, terms.nums, terms.askPrice, hash(terms.parties));
    }

    function id(address provider, uint256 nums, uint96 askPrice, bytes32 parties)
        internal
        pure
        returns (bytes32 lease)
    {
        assembly ("memory-safe") {
            let p := mload(0x40)
            mstore(p, provider)
            mstore(add(p, 0x20), nums)
            mstore(add(p, 0x40), askPrice)
            mstore(add(p, 0x60), parties)
            lease := keccak256(p, 0x80)
        }
    }

    function hash(Parties calldata parties) internal pure returns (bytes32 result) {
        assembly ("memory-safe") {
            let p := mload(0x40)
            calldatacopy(p, parties, 0x100)
            result := keccak256(p, 0x100)
        }
    }

    function hashMemory(Parties memory parties) internal pure returns (bytes32 result) {
        assembly ("memory-safe") {
            result := keccak256(parties, 0x100)
        }
    }

    function unpacked(Terms calldata terms) internal pure returns (Nums) {
        return Nums.wrap(terms.nums);
    }
}

/// @dev The chain of tips over checkpoint roots.
library TipLib {
    /// @return tip over `roots`, each hashed with the tip before it: 20 and 32 bytes
    function extend(bytes20 tip, bytes32[] calldata roots) internal pure returns (bytes20) {
        assembly ("memory-safe") {
            let end := add(roots.offset, shl(5, roots.length))
            for { let at := roots.offset } lt(at, end) { at := add(at, 0x20) } {
                mstore(0x00, tip)
                mstore(0x14, calldataload(at))
                tip := and(keccak256(0x00, 0x34), shl(96, not(0)))
            }
        }
        return tip;
    }
}
