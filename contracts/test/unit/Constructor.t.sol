// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.28;

import {IERC20} from "@openzeppelin/contracts/token/ERC20/IERC20.sol";

import {Bounds, IEscrow} from "../../src/interfaces/IEscrow.sol";
import {EscrowTest} from "../utils/EscrowTest.sol";

/* constructor
 * ├── token is the zero address: reverts
 * ├── a lower bound is 0: reverts
 * ├── a lower bound is above its upper bound: reverts
 * └── else: token, bounds and domain can be read
 */
contract ConstructorTest is EscrowTest {
    function test_RevertWhen_TokenZero() external {
        vm.expectRevert(IEscrow.Escrow_ZeroAddress.selector);
        _newEscrow(IERC20(address(0)), _bounds());
    }

    function test_RevertWhen_LowerBoundZero() external {
        for (uint256 i; i < 3; ++i) {
            Bounds memory b = _bounds();
            if (i == 0) b.minCheckpointTimeout = 0;
            if (i == 1) b.minWindow = 0;
            if (i == 2) b.minArbiterTimeout = 0;
            vm.expectRevert(IEscrow.Escrow_BoundsInvalid.selector);
            _newEscrow(token, b);
        }
    }

    function test_RevertWhen_BoundsCrossed() external {
        for (uint256 i; i < 3; ++i) {
            Bounds memory b = _bounds();
            if (i == 0) b.minCheckpointTimeout = b.maxCheckpointTimeout + 1;
            if (i == 1) b.minWindow = b.maxWindow + 1;
            if (i == 2) b.minArbiterTimeout = b.maxArbiterTimeout + 1;
            vm.expectRevert(IEscrow.Escrow_BoundsInvalid.selector);
            _newEscrow(token, b);
        }
    }

    function test_Readable() external view {
        assertEq(escrow.token(), address(token), "token");
        assertEq(keccak256(abi.encode(escrow.bounds())), keccak256(abi.encode(_bounds())), "bounds");
        (, string memory name, string memory version, uint256 chainId, address verifier,,) = escrow.eip712Domain();
        assertEq(keccak256(bytes(name)), keccak256("gpumarket"), "name");
        assertEq(keccak256(bytes(version)), keccak256("2"), "version");
        assertEq(chainId, block.chainid, "chain id");
        assertEq(verifier, address(escrow), "verifying contract");
    }
}
