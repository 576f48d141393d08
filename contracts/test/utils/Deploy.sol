// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.28;

import {IERC20} from "@openzeppelin/contracts/token/ERC20/IERC20.sol";

import {EpochLog} from "../../src/EpochLog.sol";
import {Escrow} from "../../src/Escrow.sol";
import {Bounds, IEscrow} from "../../src/interfaces/IEscrow.sol";
import {DevToken} from "../../src/periphery/DevToken.sol";
import {OperatorArbiter} from "../../src/periphery/OperatorArbiter.sol";
import {Test} from "./Test.sol";

/// @notice The contracts under test: as they are compiled with the tests, or as they ship. `ARTIFACTS=contracts/artifacts
/// forge test` takes the latter, which via-IR made.
abstract contract Deploy is Test {
    function _newEscrow(IERC20 token, Bounds memory bounds) internal returns (Escrow) {
        address place = _shipped("Escrow", abi.encode(token, bounds));
        return place == address(0) ? new Escrow(token, bounds) : Escrow(place);
    }

    function _newToken() internal returns (DevToken) {
        address place = _shipped("DevToken", "");
        return place == address(0) ? new DevToken() : DevToken(place);
    }

    function _newEpochLog() internal returns (EpochLog) {
        address place = _shipped("EpochLog", "");
        return place == address(0) ? new EpochLog() : EpochLog(place);
    }

    function _newOperatorArbiter(IEscrow escrow, address operator) internal returns (OperatorArbiter) {
        address place = _shipped("OperatorArbiter", abi.encode(escrow, operator));
        return place == address(0) ? new OperatorArbiter(escrow, operator) : OperatorArbiter(place);
    }

    /// @return place 0 if the tests' own build is asked for
    function _shipped(string memory name, bytes memory arguments) private returns (address place) {
        string memory folder = vm.envOr("ARTIFACTS", string(""));
        if (bytes(folder).length == 0) return address(0);
        string memory artifact = vm.readFile(string.concat(folder, "/", name, ".json"));
        bytes memory code = bytes.concat(vm.parseJsonBytes(artifact, ".bytecode"), arguments);
        assembly ("memory-safe") {
            place := create(0, add(code, 0x20), mload(code))
            if iszero(place) {
                let p := mload(0x40)
                returndatacopy(p, 0, returndatasize())
                revert(p, returndatasize())
            }
        }
    }
}
