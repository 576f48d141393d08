// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.28;

import {EpochLog} from "../../src/EpochLog.sol";
import {Question} from "../../src/interfaces/IArbiter.sol";
import {Terms} from "../../src/interfaces/IEscrow.sol";
import {DevToken} from "../../src/periphery/DevToken.sol";
import {OperatorArbiter} from "../../src/periphery/OperatorArbiter.sol";
import {EscrowTest} from "../utils/EscrowTest.sol";

/* EpochLog.publish
 * ├── the epoch is not above the market's newest: reverts
 * └── else: noted and published; markets don't touch each other
 *
 * OperatorArbiter
 * ├── open by anyone but the escrow: reverts
 * ├── rule
 * │   ├── by anyone but the operator: reverts
 * │   ├── none of 1 to 4: reverts
 * │   ├── of a question never asked: reverts
 * │   ├── of one that is ruled: reverts
 * │   └── else: the verdict stands, and the escrow applies it
 * └── withdraw: moves fees out, by the operator only
 *
 * DevToken.faucet: mints, up to the cap
 */
contract PeripheryTest is EscrowTest {
    EpochLog internal log = _newEpochLog();
    OperatorArbiter internal operated;
    address internal operator;

    function setUp() public override {
        super.setUp();
        operator = _actor("operator");
        operated = _newOperatorArbiter(escrow, operator);
        rules.arbiter = address(operated);
    }

    function test_EpochLog() external {
        vm.expectEmit(address(log));
        emit EpochLog.EpochPublished(address(this), 3, keccak256("orders"));
        log.publish(3, keccak256("orders"));
        assertEq(log.newest(address(this)), 3, "newest");
        vm.prank(stranger);
        log.publish(1, 0);
        assertEq(log.newest(stranger), 1, "another market's");
    }

    function test_EpochLog_RevertWhen_NotHigher() external {
        vm.expectRevert(abi.encodeWithSelector(EpochLog.EpochLog_NotHigher.selector, 0, 0));
        log.publish(0, 0);
        log.publish(3, 0);
        vm.expectRevert(abi.encodeWithSelector(EpochLog.EpochLog_NotHigher.selector, 3, 3));
        log.publish(3, 0);
    }

    function test_OperatorArbiter_RevertWhen_OpenNotByEscrow() external {
        Question memory question;
        vm.expectRevert(abi.encodeWithSelector(OperatorArbiter.OperatorArbiter_NotEscrow.selector, address(this)));
        operated.open(question);
    }

    function test_OperatorArbiter_RevertWhen_NotOperator() external {
        vm.expectRevert(abi.encodeWithSelector(OperatorArbiter.OperatorArbiter_NotOperator.selector, address(this)));
        operated.rule(0, 1);
        vm.expectRevert(abi.encodeWithSelector(OperatorArbiter.OperatorArbiter_NotOperator.selector, address(this)));
        operated.withdraw(operator, 1);
    }

    function test_OperatorArbiter_RevertWhen_VerdictUnknown() external {
        for (uint8 verdict; verdict <= 5; verdict += 5) {
            vm.expectRevert(abi.encodeWithSelector(OperatorArbiter.OperatorArbiter_BadVerdict.selector, verdict));
            vm.prank(operator);
            operated.rule(0, verdict);
        }
    }

    function test_OperatorArbiter_RevertWhen_NeverAsked() external {
        vm.expectRevert(abi.encodeWithSelector(OperatorArbiter.OperatorArbiter_UnknownQuestion.selector, bytes32("x")));
        vm.prank(operator);
        operated.rule("x", 1);
    }

    function test_OperatorArbiter() external {
        Terms memory terms = _opened();
        _claim(terms, 1, 1);
        _challenge(terms, 0, 1, 1);
        bytes32 id = _dispute(terms);
        assertTrue(operated.isOpen(id), "open");
        vm.expectEmit(address(operated));
        emit OperatorArbiter.Ruled(id, 2);
        vm.prank(operator);
        operated.rule(id, 2);
        assertEq(operated.verdict(id), 2, "verdict");

        vm.expectRevert(abi.encodeWithSelector(OperatorArbiter.OperatorArbiter_AlreadyRuled.selector, id, 2));
        vm.prank(operator);
        operated.rule(id, 1);

        escrow.resolve(terms, rules);
        _assertState(_id(terms), CLOSED, 0, 0, 0, bytes20(JOB));
        vm.prank(operator);
        operated.withdraw(stranger, ARBITER_FEE);
        assertEq(token.balanceOf(stranger), ARBITER_FEE, "fee");
    }

    function test_DevToken() external {
        uint256 cap = token.FAUCET_CAP();
        token.faucet(stranger, cap);
        assertEq(token.balanceOf(stranger), cap, "minted");
        assertEq(token.decimals(), 6, "decimals");
        vm.expectRevert(abi.encodeWithSelector(DevToken.DevToken_AboveCap.selector, cap + 1, cap));
        token.faucet(stranger, cap + 1);
    }
}
