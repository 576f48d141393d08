// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.28;

import {Escrow} from "../../src/Escrow.sol";
import {Bounds} from "../../src/interfaces/IEscrow.sol";
import {DevToken} from "../../src/periphery/DevToken.sol";
import {Test} from "../utils/Test.sol";
import {Handler} from "./Handler.sol";

/* The invariants of docs/protocol.md section 5, by number:
 * 1, 4, 7, 9  after each move, by the handler's checks
 * 3, 5, 6, 7  within each move: the handler models what it may do, and fails where the escrow does otherwise
 * 2, 8        at the end of each game: anybody takes all leases to their ends, all withdraw, nothing is left
 */
abstract contract Game is Test {
    Escrow internal escrow;
    DevToken internal token;
    Handler internal handler;

    function setUp() external {
        vm.warp(1_800_000_000);
        token = new DevToken();
        escrow = new Escrow(token, Bounds(1, 1000, 1, 1000, 1, 1000));
        handler = new Handler(escrow, token);
    }

    function _check() internal view {
        handler.checkSolvency();
        handler.checkLeases();
        handler.checkBalances();
        handler.checkActive();
    }

    function _finish() internal {
        handler.finish();
        assertEq(token.balanceOf(address(escrow)), handler.donated(), "left");
    }
}

/// forge-config: default.invariant.fail-on-revert = true
contract Invariants is Game {
    struct FuzzSelector {
        address addr;
        bytes4[] selectors;
    }

    function targetContracts() external view returns (address[] memory targets) {
        targets = new address[](1);
        targets[0] = address(handler);
    }

    /// @dev All moves, but for the end of the game.
    function targetSelectors() external view returns (FuzzSelector[] memory targets) {
        targets = new FuzzSelector[](1);
        targets[0] = FuzzSelector(address(handler), handler.moves());
    }

    function invariant_Protocol() external view {
        _check();
    }

    function afterInvariant() external {
        _finish();
    }
}

/// @notice The same game in one call: faster, so longer, and with moves drawn evenly.
contract RandomGames is Game {
    uint256 private constant MOVES = 150;

    /// forge-config: default.fuzz.runs = 128
    function testFuzz_Game(uint256 seed) external {
        bytes4[] memory moves = handler.moves();
        for (uint256 i; i < MOVES; ++i) {
            seed = uint256(keccak256(abi.encode(seed)));
            // Each move takes up to three numbers.
            bytes memory numbers = abi.encode(
                keccak256(abi.encode(seed, 1)), keccak256(abi.encode(seed, 2)), keccak256(abi.encode(seed, 3))
            );
            bytes memory input = bytes.concat(moves[seed % moves.length], numbers);
            (bool ok, bytes memory output) = address(handler).call(input);
            if (!ok) _fail(output);
            if (i % 10 == 0) _check();
        }
        _check();
        _finish();
    }

    function _fail(bytes memory output) private pure {
        assembly ("memory-safe") {
            revert(add(output, 0x20), mload(output))
        }
    }
}
