// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.28;

import {ERC20, ERC20Permit} from "@openzeppelin/contracts/token/ERC20/extensions/ERC20Permit.sol";

/// @title Play money
/// @notice For devnets: anyone mints.
contract DevToken is ERC20Permit {
    error DevToken_AboveCap(uint256 amount, uint256 cap);

    /// What one call of the faucet gives at most: a million tokens.
    uint256 public constant FAUCET_CAP = 1_000_000e6;

    constructor() ERC20("gpumarket test dollar", "tUSD") ERC20Permit("gpumarket test dollar") {}

    function decimals() public pure override returns (uint8) {
        return 6;
    }

    function faucet(address to, uint256 amount) external {
        if (amount > FAUCET_CAP) revert DevToken_AboveCap(amount, FAUCET_CAP);

        _mint(to, amount);
    }
}
