// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.28;

import {IERC20} from "@openzeppelin/contracts/token/ERC20/IERC20.sol";
import {IERC20Permit} from "@openzeppelin/contracts/token/ERC20/extensions/IERC20Permit.sol";
import {SafeERC20} from "@openzeppelin/contracts/token/ERC20/utils/SafeERC20.sol";

import {IEscrow} from "../interfaces/IEscrow.sol";
import {Account} from "../libraries/AccountLib.sol";

/// @dev The parties' accounts, and the only calls that move tokens.
abstract contract Balances is IEscrow {
    using SafeERC20 for IERC20;

    IERC20 private immutable _token;

    mapping(address owner => Account) internal _accounts;

    constructor(IERC20 token_) {
        if (address(token_) == address(0)) revert Escrow_ZeroAddress();
        _token = token_;
    }

    /// @inheritdoc IEscrow
    function deposit(address owner, uint256 amount) public {
        if (owner == address(0)) revert Escrow_ZeroAddress();
        if (amount == 0) revert Escrow_ZeroAmount();
        if (amount > type(uint96).max) revert Escrow_TooManyTokens(amount);

        _accounts[owner] = _accounts[owner].credit(amount);
        emit Deposited(owner, msg.sender, amount);

        uint256 before = _token.balanceOf(address(this));
        _token.safeTransferFrom(msg.sender, address(this), amount);
        uint256 held = _token.balanceOf(address(this));
        if (held != before + amount) revert Escrow_ReceivedOther(held - before, amount);
        // All balances together fit in 96 bits, so none that is credited later can overflow.
        if (held > type(uint96).max) revert Escrow_TooManyTokens(held);
    }

    /// @inheritdoc IEscrow
    function depositWithPermit(address owner, uint256 amount, uint256 deadline, uint8 v, bytes32 r, bytes32 s)
        external
    {
        // Anyone can use up a permit seen in the mempool. Then the allowance is there already.
        try IERC20Permit(address(_token)).permit(msg.sender, address(this), amount, deadline, v, r, s) {} catch {}
        deposit(owner, amount);
    }

    /// @inheritdoc IEscrow
    function withdraw(address to, uint256 amount) external {
        if (to == address(0)) revert Escrow_ZeroAddress();
        if (to == address(this)) revert Escrow_NotAllowed(to);
        if (amount == 0) revert Escrow_ZeroAmount();

        _debit(msg.sender, amount);
        emit Withdrawn(msg.sender, to, amount);

        _token.safeTransfer(to, amount);
    }

    /// @inheritdoc IEscrow
    function raisePage(uint32 page) external {
        Account a = _accounts[msg.sender];
        if (page <= a.page()) revert Escrow_PageNotHigher(uint32(a.page()), page);

        _accounts[msg.sender] = a.withPage(page);
        emit PageRaised(msg.sender, page);
    }

    function _credit(address owner, uint256 amount) internal {
        if (amount != 0) _accounts[owner] = _accounts[owner].credit(amount);
    }

    function _debit(address owner, uint256 amount) internal {
        Account a = _accounts[owner];
        if (amount > a.free()) revert Escrow_BalanceShort(owner, a.free(), amount);
        _accounts[owner] = a.debit(amount);
    }

    /// @inheritdoc IEscrow
    function token() external view returns (address) {
        return address(_token);
    }

    /// @inheritdoc IEscrow
    function account(address owner) external view returns (uint96 free, uint16 active, uint32 page, uint112 used) {
        Account a = _accounts[owner];
        return (uint96(a.free()), uint16(a.active()), uint32(a.page()), a.used());
    }
}
