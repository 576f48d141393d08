// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.28;

import {Escrow} from "../../src/Escrow.sol";
import {IEscrow, Phase} from "../../src/interfaces/IEscrow.sol";
import {DevToken} from "../../src/periphery/DevToken.sol";
import {Wallet} from "../utils/Wallets.sol";
import {Checks} from "./Checks.sol";
import {DisputeMoves} from "./DisputeMoves.sol";
import {Model} from "./Model.sol";
import {OpenMoves} from "./OpenMoves.sol";
import {WorkMoves} from "./WorkMoves.sol";

/// @notice Random parties make random moves. The model foretells which call goes through, and each call is checked
/// against that.
contract Handler is OpenMoves, WorkMoves, DisputeMoves, Checks {
    constructor(Escrow escrow_, DevToken token_) Model(escrow_, token_) {}

    /// @notice All that a game is made of; what moves leases on comes up more often.
    function moves() external pure returns (bytes4[] memory m) {
        m = new bytes4[](58);
        uint256 count;
        count = _add(m, count, this.warp.selector, 6);
        count = _add(m, count, this.open.selector, 3);
        count = _add(m, count, this.openMany.selector, 1);
        count = _add(m, count, this.continueLease.selector, 3);
        count = _add(m, count, this.claim.selector, 10);
        count = _add(m, count, this.redeem.selector, 1);
        count = _add(m, count, this.redeemMany.selector, 1);
        count = _add(m, count, this.collect.selector, 2);
        count = _add(m, count, this.end.selector, 3);
        count = _add(m, count, this.close.selector, 3);
        count = _add(m, count, this.challenge.selector, 5);
        count = _add(m, count, this.challengeSigned.selector, 3);
        count = _add(m, count, this.redeemChallenged.selector, 4);
        count = _add(m, count, this.rule.selector, 5);
        count = _add(m, count, this.resolve.selector, 3);
        count = _add(m, count, this.deposit.selector, 1);
        count = _add(m, count, this.withdraw.selector, 1);
        count = _add(m, count, this.donate.selector, 1);
        count = _add(m, count, this.raisePage.selector, 1);
        count = _add(m, count, this.setMood.selector, 1);
        assertEq(count, m.length, "moves");
    }

    function _add(bytes4[] memory m, uint256 count, bytes4 selector, uint256 times) private pure returns (uint256) {
        for (uint256 i; i < times; ++i) {
            m[count++] = selector;
        }
        return count;
    }

    /// @inheritdoc DisputeMoves
    function _reentered(uint256 seed) internal override {
        bytes4[13] memory m = [
            this.withdraw.selector,
            this.claim.selector,
            this.redeem.selector,
            this.redeemMany.selector,
            this.collect.selector,
            this.end.selector,
            this.close.selector,
            this.challenge.selector,
            this.challengeSigned.selector,
            this.redeemChallenged.selector,
            this.rule.selector,
            this.resolve.selector,
            this.openMany.selector
        ];
        bytes memory numbers = abi.encode(_part(seed, 1), _part(seed, 2), _part(seed, 3));
        (bool ok, bytes memory output) = address(this).call(bytes.concat(m[seed % m.length], numbers));
        assembly ("memory-safe") {
            if iszero(ok) { revert(add(output, 0x20), mload(output)) }
        }
    }

    // ---------------------------------------------------------------- balances

    function deposit(uint256 actor, uint256 amount) external {
        actor %= ACTORS;
        amount = bound(amount, 0, token.balanceOf(accounts[actor]));
        if (amount != 0) _deposit(actor, amount);
    }

    function withdraw(uint256 actor, uint256 amount) external {
        address owner = accounts[actor % (ACTORS + 1)];
        amount = bound(amount, 0, balances[owner] / 4 + 1);
        bool ok = amount != 0 && amount <= balances[owner];
        if (ok) balances[owner] -= amount;
        _call(owner, abi.encodeCall(IEscrow.withdraw, (owner, amount)), ok, "withdraw");
    }

    /// @notice Tokens sent unasked.
    function donate(uint256 actor, uint256 amount) external {
        address from = accounts[actor % ACTORS];
        amount = bound(amount, 0, 3);
        if (amount > token.balanceOf(from)) return;
        vm.prank(from);
        token.transfer(address(escrow), amount);
        donated += amount;
    }

    function raisePage(uint256 actor, uint256 by) external {
        if (by % 8 != 0) return; // or nothing would ever be opened
        address owner = accounts[actor % ACTORS];
        ++pages[owner];
        bits[owner] = 0;
        _call(owner, abi.encodeCall(IEscrow.raisePage, (pages[owner])), true, "raisePage");
    }

    /// @notice The wallet disowns what its owner signed, or stands by it again: now and then, or it would do nothing.
    function setMood(uint256 number) external {
        wallet.setMood(number % 4 == 0 ? Wallet.Mood.SaysNo : Wallet.Mood.Good);
    }

    function warp(uint256 by) external {
        vm.warp(block.timestamp + bound(by, 1, WINDOW));
    }

    // ---------------------------------------------------------------- ends

    function end(uint256 which, uint256 by) external {
        if (leases.length == 0) return;
        uint256 phase = _part(by, 1) % 10;
        if (phase > 4) _end(_pick(which), by);
        else _end(_pickIn(Phase(phase), which), by);
    }

    function _end(Lease storage l, uint256 by) private {
        _sync(l);
        address sender = address(this);
        if (by % 8 == 0) sender = l.terms.provider;
        if (by % 8 == 1 || by % 8 == 3) sender = l.terms.parties.client;
        bool byClient = sender == l.terms.parties.client;
        bool late = l.claimed == l.accepted && block.timestamp >= l.t + TIMEOUT;
        bool ok = l.phase != Phase.None && byClient;
        if (l.phase == Phase.Active) ok = byClient || late || sender == l.terms.provider;
        else if (l.byClient) ok = false;
        if (ok) _ended(l, byClient, late);
        _call(sender, abi.encodeCall(IEscrow.end, (l.terms)), ok, "end");
    }

    function _ended(Lease storage l, bool byClient, bool late) private {
        ++calls[["", "ended", "ended while closing", "given up", "ended while challenged"][uint256(l.phase)]];
        if (l.phase == Phase.Closed) {
            l.phase = Phase.None;
            return;
        }
        if (byClient) l.byClient = true;
        if (l.phase == Phase.Active) {
            l.phase = Phase.Closing;
            l.t = block.timestamp;
            l.late = late;
        }
    }

    function close(uint256 which) external {
        if (leases.length != 0) _close(_pickIn(Phase.Closing, which));
    }

    function _close(Lease storage l) private {
        _sync(l);
        bool ok = l.phase == Phase.Closing && block.timestamp >= l.t + rules[l.rules].window;
        if (ok) {
            ++calls["closed"];
            assertEq(l.claimed, l.accepted, "nothing can be pending at a close");
            _pay(l);
            uint256 stake = l.terms.parties.stake;
            uint256 penalty = l.late && l.accepted != _lastIndex(l.terms.nums) ? l.terms.askPrice : 0;
            if (penalty > stake) penalty = stake;
            if (penalty != 0 && penalty < _price(l.terms.nums)) ++calls["closed late, at less than the price"];
            _exit(l, stake - penalty, penalty);
        }
        _call(address(this), abi.encodeCall(IEscrow.close, (l.terms)), ok, "close");
    }

    /// @notice A stranger takes every lease to its end, in the time that the protocol promises; all withdraw.
    function finish() external {
        for (uint256 i; i < leases.length; ++i) {
            Lease storage l = leases[i];
            if (l.phase == Phase.Challenged) {
                if (l.verdict == 0 || l.verdict == 5) vm.warp(block.timestamp + ARBITER_TIMEOUT);
                _resolve(l);
            }
            if (l.phase == Phase.Active) {
                vm.warp(block.timestamp + TIMEOUT + rules[l.rules].window);
                _end(l, 2);
                assertTrue(l.phase == Phase.Closing, "Active ends by timeout + window");
            }
            if (l.phase == Phase.Closing) {
                vm.warp(block.timestamp + rules[l.rules].window);
                _close(l);
            }
            assertTrue(l.phase == Phase.None || l.phase == Phase.Closed, "over");
        }
        for (uint256 i; i < accounts.length; ++i) {
            address owner = accounts[i];
            assertEq(_activeOf(owner), 0, "active");
            if (balances[owner] == 0 || owner == NOBODY) continue;
            vm.prank(owner);
            escrow.withdraw(owner, balances[owner]);
            balances[owner] = 0;
        }
    }
}
