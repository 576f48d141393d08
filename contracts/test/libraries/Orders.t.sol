// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.28;

import {Ask, Bid, Rules} from "../../src/interfaces/IEscrow.sol";
import {OrderLib} from "../../src/libraries/OrderLib.sol";
import {TipLib} from "../../src/libraries/TermsLib.sol";
import {Test} from "../utils/Test.sol";

/// @notice Hashes made in assembly are those of abi.encode, and leave memory as it was.
contract OrdersTest is Test {
    function testFuzz_Rules(Rules memory rules) external pure {
        bytes32 before = keccak256(abi.encode(rules));
        assertEq(OrderLib.hash(rules), keccak256(abi.encode(OrderLib.RULES_TYPEHASH, rules)), "hash");
        assertEq(keccak256(abi.encode(rules)), before, "memory");
    }

    function testFuzz_Bid(Bid memory bid) external view {
        bytes32 expected = keccak256(abi.encode(OrderLib.BID_TYPEHASH, bid));
        assertEq(OrderLib.hash(bid), expected, "hash");
        assertEq(OrderLib.hash(bid), expected, "again");
        assertEq(this.copyAndHash(bid), expected, "of a copy");
    }

    function testFuzz_Ask(Ask memory ask) external view {
        bytes32 expected = keccak256(abi.encode(OrderLib.ASK_TYPEHASH, ask));
        assertEq(OrderLib.hash(ask), expected, "hash");
        assertEq(this.copyAndHash(ask), expected, "of a copy");
    }

    /// @dev A type hash stands before a struct for a moment: what was there comes back, and what follows stays.
    function testFuzz_WhatIsBeforeAndBehind(Rules memory rules, Bid memory bid, Ask memory ask, bytes32 word)
        external
        pure
    {
        bytes32[3] memory pointers;
        uint256[3] memory sizes = [uint256(6), 13, 12];
        for (uint256 i; i < 3; ++i) {
            uint256 size = sizes[i];
            bytes32 from;
            assembly ("memory-safe") {
                from := add(mload(0x40), 0x20)
                mstore(sub(from, 0x20), word)
                mstore(0x40, add(from, mul(0x20, add(size, 1))))
                mstore(add(from, mul(0x20, size)), word)
            }
            pointers[i] = from;
        }
        bytes32 expected = keccak256(abi.encode(OrderLib.RULES_TYPEHASH, rules));
        _copy(abi.encode(rules), pointers[0]);
        Rules memory movedRules;
        bytes32 place = pointers[0];
        assembly ("memory-safe") {
            movedRules := place
        }
        assertEq(OrderLib.hash(movedRules), expected, "rules");

        expected = keccak256(abi.encode(OrderLib.BID_TYPEHASH, bid));
        _copy(abi.encode(bid), pointers[1]);
        place = pointers[1];
        assembly ("memory-safe") {
            bid := place
        }
        assertEq(OrderLib.hash(bid), expected, "Bid");

        expected = keccak256(abi.encode(OrderLib.ASK_TYPEHASH, ask));
        _copy(abi.encode(ask), pointers[2]);
        place = pointers[2];
        assembly ("memory-safe") {
            ask := place
        }
        assertEq(OrderLib.hash(ask), expected, "Ask");

        for (uint256 i; i < 3; ++i) {
            assertEq(_wordAt(pointers[i], -1), word, "before");
            assertEq(_wordAt(pointers[i], int256(sizes[i])), word, "behind");
        }
    }

    function _copy(bytes memory words, bytes32 to) private pure {
        assembly ("memory-safe") {
            mcopy(to, add(words, 0x20), mload(words))
        }
    }

    function _wordAt(bytes32 from, int256 index) private pure returns (bytes32 word) {
        assembly ("memory-safe") {
            word := mload(add(from, mul(index, 0x20)))
        }
    }

    function testFuzz_Tip(bytes20 tip, bytes32[] calldata roots) external pure {
        bytes20 expected = tip;
        for (uint256 i; i < roots.length; ++i) {
            expected = bytes20(keccak256(abi.encodePacked(expected, roots[i])));
        }
        assertEq(bytes32(TipLib.extend(tip, roots)), bytes32(expected), "tip");
    }

    /// @dev Bits beyond a field's type change the hash, so that nobody has signed them, and nothing else.
    function testFuzz_DirtyBits(Bid memory bid, uint256 dirt) external view {
        bytes memory input = abi.encodeWithSignature(
            "copyAndRead((address,address,address,bytes32,bytes32,bytes20,uint16,uint64,uint96,uint64,uint96,uint40,uint40))",
            bid
        );
        dirt = bound(dirt, 1, type(uint240).max) << 16;
        assembly ("memory-safe") {
            let checkpoints := add(input, add(0x24, 0xc0))
            mstore(checkpoints, or(mload(checkpoints), dirt))
        }
        (bool success, bytes memory output) = address(this).staticcall(input);
        assertTrue(success, "reads");
        (uint256 checkpoints, bytes32 hash) = abi.decode(output, (uint256, bytes32));
        assertEq(checkpoints, bid.checkpoints, "checkpoints");
        assertTrue(hash != keccak256(abi.encode(OrderLib.BID_TYPEHASH, bid)), "hash");
    }

    function copyAndHash(Bid calldata source) external pure returns (bytes32) {
        Bid memory bid;
        OrderLib.copyTo(source, bid);
        return OrderLib.hash(bid);
    }

    function copyAndHash(Ask calldata source) external pure returns (bytes32) {
        Ask memory ask;
        OrderLib.copyTo(source, ask);
        return OrderLib.hash(ask);
    }

    function copyAndRead(Bid calldata source) external pure returns (uint256, bytes32) {
        Bid memory bid;
        OrderLib.copyTo(source, bid);
        return (uint256(bid.checkpoints), OrderLib.hash(bid));
    }
}
