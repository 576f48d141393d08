// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.28;

import {IERC20Errors} from "@openzeppelin/contracts/interfaces/draft-IERC6093.sol";

import {Escrow} from "../../src/Escrow.sol";
import {IEscrow} from "../../src/interfaces/IEscrow.sol";
import {EscrowTest} from "../utils/EscrowTest.sol";
import {BentToken, PlainToken} from "../utils/Tokens.sol";

/* deposit
 * ├── account is the zero address: reverts
 * ├── amount is 0: reverts
 * ├── amount has more than 96 bits: reverts
 * ├── the escrow would hold more than 96 bits: reverts
 * ├── the token refuses: reverts
 * ├── less or more arrives than was asked for: reverts
 * └── else: the tokens move, the account named is credited
 *
 * depositWithPermit
 * ├── permit valid: deposits without an allowance
 * ├── permit used up by someone else: deposits from the allowance it made
 * ├── the token has no permits
 * │   ├── there is an allowance: deposits
 * │   └── there is none: reverts
 *
 * withdraw
 * ├── to is the zero address: reverts
 * ├── amount is 0: reverts
 * ├── to is the escrow: reverts
 * ├── amount is above the free balance: reverts
 * └── else: the caller is debited, the tokens move
 *
 * raisePage
 * ├── page is not higher: reverts
 * └── else: the new page has no used nonces; balance and active stay
 */
contract BalancesTest is EscrowTest {
    function test_Deposit_RevertWhen_AccountZero() external {
        vm.expectRevert(IEscrow.Escrow_ZeroAddress.selector);
        escrow.deposit(address(0), 1);
    }

    function test_Deposit_RevertWhen_AmountZero() external {
        vm.expectRevert(IEscrow.Escrow_ZeroAmount.selector);
        escrow.deposit(client, 0);
    }

    function test_Deposit_RevertWhen_AmountAbove96Bits() external {
        vm.expectRevert(abi.encodeWithSelector(IEscrow.Escrow_TooManyTokens.selector, uint256(1) << 96));
        escrow.deposit(client, 1 << 96);
    }

    function test_Deposit_RevertWhen_EscrowHoldsAbove96Bits() external {
        PlainToken huge = new PlainToken();
        Escrow rich = _newEscrow(huge, _bounds());
        huge.mint(address(this), 1 << 100);
        huge.approve(address(rich), type(uint256).max);
        rich.deposit(client, type(uint96).max);
        vm.expectRevert(abi.encodeWithSelector(IEscrow.Escrow_TooManyTokens.selector, uint256(1) << 96));
        rich.deposit(provider, 1);
        assertEq(_freeIn(rich, client), type(uint96).max, "free");
    }

    function test_Deposit_RevertWhen_TokensSentUnaskedFillIt() external {
        PlainToken huge = new PlainToken();
        Escrow rich = _newEscrow(huge, _bounds());
        huge.mint(address(rich), type(uint96).max);
        huge.mint(address(this), 1);
        huge.approve(address(rich), 1);
        vm.expectRevert(abi.encodeWithSelector(IEscrow.Escrow_TooManyTokens.selector, uint256(1) << 96));
        rich.deposit(client, 1);
    }

    function test_Deposit_RevertWhen_TokenRefuses() external {
        vm.expectRevert(abi.encodeWithSelector(IERC20Errors.ERC20InsufficientAllowance.selector, address(escrow), 0, 5));
        vm.prank(stranger);
        escrow.deposit(stranger, 5);
    }

    function test_Deposit_RevertWhen_AnotherAmountArrives() external {
        BentToken bent = new BentToken();
        Escrow other = _newEscrow(bent, _bounds());
        bent.mint(address(this), 1_000);
        bent.approve(address(other), type(uint256).max);
        other.deposit(client, 100);
        for (uint256 arriving = 99; arriving <= 101; arriving += 2) {
            bent.setArriving(arriving);
            vm.expectRevert(abi.encodeWithSelector(IEscrow.Escrow_ReceivedOther.selector, arriving, 100));
            other.deposit(client, 100);
        }
        vm.expectRevert(abi.encodeWithSelector(IEscrow.Escrow_ReceivedOther.selector, 101, 100));
        other.depositWithPermit(client, 100, START_TIME, 27, 0, 0);
        assertEq(_freeIn(other, client), 100, "client");
        assertEq(bent.balanceOf(address(other)), 100, "held");
    }

    function test_Deposit_CreditsTheAccountNamed() external {
        token.faucet(stranger, 7);
        vm.prank(stranger);
        token.approve(address(escrow), 7);
        uint256 held = token.balanceOf(address(escrow));
        vm.expectEmit(address(escrow));
        emit IEscrow.Deposited(client, stranger, 7);
        vm.prank(stranger);
        escrow.deposit(client, 7);
        assertEq(_free(client), FUNDS + 7, "client");
        assertEq(_free(stranger), 0, "stranger");
        assertEq(token.balanceOf(address(escrow)), held + 7, "held");
    }

    function test_DepositWithPermit_NeedsNoAllowance() external {
        token.faucet(client, 9);
        (uint8 v, bytes32 r, bytes32 s) = _permit(client, 9);
        vm.prank(client);
        escrow.depositWithPermit(stranger, 9, START_TIME, v, r, s);
        assertEq(_free(stranger), 9, "credited");
    }

    function test_DepositWithPermit_PermitUsedBySomeoneElse() external {
        token.faucet(client, 9);
        (uint8 v, bytes32 r, bytes32 s) = _permit(client, 9);
        vm.prank(stranger);
        token.permit(client, address(escrow), 9, START_TIME, v, r, s);
        vm.prank(client);
        escrow.depositWithPermit(client, 9, START_TIME, v, r, s);
        assertEq(_free(client), FUNDS + 9, "credited");
    }

    function test_DepositWithPermit_TokenWithoutPermits() external {
        PlainToken plain = new PlainToken();
        Escrow other = _newEscrow(plain, _bounds());
        plain.mint(address(this), 10);
        plain.approve(address(other), 4);
        other.depositWithPermit(client, 4, START_TIME, 27, 0, 0);
        assertEq(_freeIn(other, client), 4, "credited");
        vm.expectRevert(abi.encodeWithSelector(IERC20Errors.ERC20InsufficientAllowance.selector, address(other), 0, 4));
        other.depositWithPermit(client, 4, START_TIME, 27, 0, 0);
    }

    function test_Withdraw_RevertWhen_ToZero() external {
        vm.expectRevert(IEscrow.Escrow_ZeroAddress.selector);
        vm.prank(client);
        escrow.withdraw(address(0), 1);
    }

    function test_Withdraw_RevertWhen_ToTheEscrow() external {
        vm.expectRevert(abi.encodeWithSelector(IEscrow.Escrow_NotAllowed.selector, address(escrow)));
        vm.prank(client);
        escrow.withdraw(address(escrow), 1);
    }

    function test_Withdraw_RevertWhen_AmountZero() external {
        vm.expectRevert(IEscrow.Escrow_ZeroAmount.selector);
        _withdraw(client, 0);
    }

    function test_Withdraw_RevertWhen_AboveFree() external {
        _opened();
        uint256 free = _free(client);
        assertTrue(free < FUNDS, "something is locked");
        vm.expectRevert(abi.encodeWithSelector(IEscrow.Escrow_BalanceShort.selector, client, free, FUNDS));
        _withdraw(client, FUNDS);
        vm.expectRevert(abi.encodeWithSelector(IEscrow.Escrow_BalanceShort.selector, client, free, type(uint256).max));
        _withdraw(client, type(uint256).max);
    }

    function test_Withdraw_MovesTokens() external {
        vm.expectEmit(address(escrow));
        emit IEscrow.Withdrawn(client, stranger, FUNDS);
        vm.prank(client);
        escrow.withdraw(stranger, FUNDS);
        assertEq(_free(client), 0, "free");
        assertEq(token.balanceOf(stranger), FUNDS, "tokens");
        assertEq(token.balanceOf(address(escrow)), 2 * FUNDS, "held");
    }

    function test_RaisePage_RevertWhen_NotHigher() external {
        _raisePage(client, 5);
        for (uint32 page = 4; page <= 5; ++page) {
            vm.expectRevert(abi.encodeWithSelector(IEscrow.Escrow_PageNotHigher.selector, 5, page));
            _raisePage(client, page);
        }
    }

    function test_RaisePage_ClearsNoncesAndKeepsTheRest() external {
        _open(_match(_bid(111), _ask()));
        (,,, uint112 used) = escrow.account(client);
        assertEq(used, uint256(1) << 111, "used before");
        uint256 free = _free(client);
        vm.expectEmit(address(escrow));
        emit IEscrow.PageRaised(client, type(uint32).max);
        _raisePage(client, type(uint32).max);
        uint32 page;
        (,, page, used) = escrow.account(client);
        assertEq(page, type(uint32).max, "page");
        assertEq(used, 0, "used");
        assertEq(_free(client), free, "free");
        _raisePage(provider, 1);
        assertEq(_active(provider), 1, "active");
    }

    function _permit(address owner, uint256 value) private view returns (uint8, bytes32, bytes32) {
        bytes32 typeHash =
            keccak256("Permit(address owner,address spender,uint256 value,uint256 nonce,uint256 deadline)");
        bytes32 message = keccak256(abi.encode(typeHash, owner, address(escrow), value, 0, START_TIME));
        return vm.sign(keyOf[owner], keccak256(abi.encodePacked(hex"1901", token.DOMAIN_SEPARATOR(), message)));
    }
}
