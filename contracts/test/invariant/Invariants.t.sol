// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.28;

import {Escrow} from "../../src/Escrow.sol";
import {Bounds} from "../../src/interfaces/IEscrow.sol";
import {DevToken} from "../../src/periphery/DevToken.sol";
import {Deploy} from "../utils/Deploy.sol";
import {Handler} from "./Handler.sol";

/* The invariants of docs/protocol.md section 5, by number:
 * 1, 4, 9     between moves, by the handler's checks
 * 3, 5, 6, 7  within each move: the handler models what it may do, and all balances, and fails where the escrow does
 *             otherwise
 * 2, 8        at the end of each game: anybody takes all leases to their ends, all withdraw, nothing is left but what was
 *             burnt
 */
abstract contract Game is Deploy {
    Escrow internal escrow;
    DevToken internal token;
    Handler internal handler;

    function setUp() external {
        vm.warp(1_800_000_000);
        token = _newToken();
        escrow = _newEscrow(token, Bounds(1, 1000, 1, 1000, 1, 9999));
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
        uint256 burnt = handler.balances(address(0));
        assertEq(token.balanceOf(address(escrow)), handler.donated() + burnt, "left");
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
    struct Expected {
        string what;
        uint256 least;
    }

    uint256 private constant MOVES = 200;
    uint256 private constant GAMES = 30;
    Expected[] private _expected;

    /// forge-config: default.fuzz.runs = 96
    function testFuzz_Game(uint256 seed) external {
        _play(seed, MOVES);
        _finish();
    }

    /// @dev Games that never came to one of these would say nothing of it.
    function test_GamesReachEachMove() external {
        vm.pauseGasMetering();
        _expected.push(Expected("opened", 132));
        _expected.push(Expected("continued", 13));
        _expected.push(Expected("opened with oneself", 47));
        _expected.push(Expected("opened for the wallet", 24));
        _expected.push(Expected("opened by the wallet", 21));
        _expected.push(Expected("opened in batches", 46));
        _expected.push(Expected("refused in batches", 99));
        _expected.push(Expected("claimed", 94));
        _expected.push(Expected("redeemed", 36));
        _expected.push(Expected("redeemed the last", 5));
        _expected.push(Expected("redeemed in batches", 30));
        _expected.push(Expected("refused to redeem in batches", 90));
        _expected.push(Expected("collected", 1));
        _expected.push(Expected("collected while challenged", 1));
        _expected.push(Expected("ended", 20));
        _expected.push(Expected("ended while closing", 1));
        _expected.push(Expected("ended while challenged", 5));
        _expected.push(Expected("given up", 3));
        _expected.push(Expected("closed", 9));
        _expected.push(Expected("closed late, at less than the price", 2));
        _expected.push(Expected("challenged", 47));
        _expected.push(Expected("challenged a signed one", 20));
        _expected.push(Expected("challenged a signed one above a pending one", 12));
        _expected.push(Expected("challenged itself", 27));
        _expected.push(Expected("bounded a bond", 20));
        _expected.push(Expected("called back", 37));
        _expected.push(Expected("approved below the disputed", 2));
        _expected.push(Expected("approved below the claimed", 2));
        _expected.push(Expected("withdrawn", 33));
        _expected.push(Expected("silent", 3));
        _expected.push(Expected("true", 5));
        _expected.push(Expected("false", 6));
        _expected.push(Expected("void", 7));
        _expected.push(Expected("unreproducible", 6));
        uint256[] memory reached = new uint256[](_expected.length);
        for (uint256 game; game < GAMES; ++game) {
            if (game != 0) this.setUp();
            _play(game, MOVES);
            for (uint256 i; i < reached.length; ++i) {
                reached[i] += handler.calls(_expected[i].what);
            }
            _finish();
        }
        string memory seldom;
        for (uint256 i; i < reached.length; ++i) {
            if (reached[i] >= _expected[i].least) continue;
            seldom = string.concat(seldom, _expected[i].what, ": ", vm.toString(reached[i]), "; ");
        }
        assertEq(bytes(seldom).length, 0, seldom);
    }

    function _play(uint256 seed, uint256 count) private {
        bytes4[] memory moves = handler.moves();
        for (uint256 i; i < count; ++i) {
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
    }

    function _fail(bytes memory output) private pure {
        assembly ("memory-safe") {
            revert(add(output, 0x20), mload(output))
        }
    }
}
