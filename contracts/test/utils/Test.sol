// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.28;

import {Vm} from "./Vm.sol";

/// @notice What a forge test needs, without forge-std: cheatcodes, and assertions that say the values.
abstract contract Test {
    Vm internal constant vm = Vm(address(uint160(uint256(keccak256("hevm cheat code")))));

    error Failed(string what);

    function assertTrue(bool condition, string memory what) internal pure {
        if (!condition) revert Failed(what);
    }

    function assertEq(uint256 got, uint256 expected, string memory what) internal pure {
        if (got != expected) _differ(what, vm.toString(got), vm.toString(expected));
    }

    function assertEq(bytes32 got, bytes32 expected, string memory what) internal pure {
        if (got != expected) _differ(what, vm.toString(got), vm.toString(expected));
    }

    function assertEq(address got, address expected, string memory what) internal pure {
        if (got != expected) _differ(what, vm.toString(got), vm.toString(expected));
    }

    function assertEq(bool got, bool expected, string memory what) internal pure {
        if (got != expected) _differ(what, vm.toString(got), vm.toString(expected));
    }

    function assertLe(uint256 got, uint256 limit, string memory what) internal pure {
        if (got > limit) _differ(what, vm.toString(got), string.concat("at most ", vm.toString(limit)));
    }

    /// @notice A number in [low, high], from any number.
    function bound(uint256 x, uint256 low, uint256 high) internal pure returns (uint256) {
        if (x >= low && x <= high) return x;
        return low + x % (high - low + 1);
    }

    /// @notice A signature's 64 bytes, as in EIP-2098.
    function compact(uint8 v, bytes32 r, bytes32 s) internal pure returns (bytes memory) {
        return abi.encodePacked(r, bytes32(uint256(s) | (uint256(v - 27) << 255)));
    }

    function _differ(string memory what, string memory got, string memory expected) private pure {
        revert Failed(string.concat(what, ": got ", got, ", expected ", expected));
    }
}
