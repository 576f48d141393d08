// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.28;

import {Phase} from "../../src/interfaces/IEscrow.sol";
import {Account} from "../../src/libraries/AccountLib.sol";
import {State, StateLib} from "../../src/libraries/StateLib.sol";
import {Nums, NumsLib} from "../../src/libraries/TermsLib.sol";
import {Test} from "../utils/Test.sol";

/// @notice Each setter changes its field and nothing else; words are laid out as the protocol says.
contract PackingTest is Test {
    struct StateFields {
        uint8 status;
        uint16 settled;
        uint16 accepted;
        uint16 claimed;
        uint40 t;
        bytes20 tip;
    }

    struct AccountFields {
        uint96 free;
        uint16 active;
        uint32 page;
        uint112 used;
    }

    function testFuzz_State_Reads(StateFields memory f) external pure {
        State s = _pack(f);
        assertEq(s.status(), f.status, "status");
        assertEq(s.settled(), f.settled, "settled");
        assertEq(s.accepted(), f.accepted, "accepted");
        assertEq(s.claimed(), f.claimed, "claimed");
        assertEq(s.t(), f.t, "t");
        assertEq(bytes32(s.tip()), bytes32(f.tip), "tip");
        for (uint8 p; p <= uint8(Phase.Challenged); ++p) {
            assertEq(s.isIn(Phase(p)), f.status & 7 == p, "phase");
        }
        assertEq(s.isLive(), f.status & 7 == 1 || f.status & 7 == 2, "live");
        assertEq(s.isActive(), f.status & 7 == 1 || f.status & 15 == 4, "active");
        assertEq(s.isPending(), f.claimed > f.accepted, "pending");
        assertEq(s.has(StateLib.LATE), f.status & 0x20 != 0, "late");
    }

    function testFuzz_State_Writes(StateFields memory f, uint16 n, bytes20 tip, uint8 phase) external view {
        State s = _pack(f);
        StateFields memory g = _pack(s.withSettled(n));
        f.settled = n;
        _same(g, f, "withSettled");
        s = _pack(f);
        f.accepted = n;
        _same(_pack(s.withAccepted(n)), f, "withAccepted");
        s = _pack(f);
        f.claimed = n;
        _same(_pack(s.withClaimed(n)), f, "withClaimed");
        s = _pack(f);
        f.tip = tip;
        _same(_pack(s.withTip(tip)), f, "withTip");
        s = _pack(f);
        f.t = uint40(block.timestamp);
        _same(_pack(s.withTimeNow()), f, "withTimeNow");
        s = _pack(f);
        phase %= 5;
        f.status = (f.status & 0xf8) | phase;
        _same(_pack(s.withPhase(Phase(phase))), f, "withPhase");
        s = _pack(f);
        f.status |= 0x40;
        _same(_pack(s.with(StateLib.MORE)), f, "with");
        s = _pack(f);
        f.status &= 0xbf;
        _same(_pack(s.without(StateLib.MORE)), f, "without");
        s = _pack(f);
        f.status = uint8(Phase.Closed);
        f.settled = f.claimed = f.accepted;
        _same(_pack(s.asClosed()), f, "asClosed");
    }

    function testFuzz_State_Start(uint16 index, bytes20 tip, bool more) external view {
        StateFields memory expected = StateFields(more ? 0x41 : 1, index, index, index, uint40(block.timestamp), tip);
        _same(_pack(StateLib.start(index, tip, more)), expected, "start");
    }

    function testFuzz_State_Sync(StateFields memory f, uint32 window, uint40 time) external {
        vm.warp(time);
        State s = _pack(f);
        bool live = f.status & 7 == 1 || f.status & 7 == 2;
        if (live && f.claimed > f.accepted && time >= uint256(f.t) + window) {
            f.accepted = f.claimed;
            if (f.status & 7 == 2) f.status &= 0xdf;
        }
        _same(_pack(s.sync(window)), f, "sync");
    }

    function testFuzz_Nums(uint16 start, uint16 end, uint32 window, uint32 timeout, uint96 price, uint64 fee)
        external
        pure
    {
        Nums nums = NumsLib.pack(start, end, window, timeout, price, fee);
        bytes memory expected = abi.encodePacked(start, end, window, timeout, price, fee);
        assertEq(bytes32(Nums.unwrap(nums)), bytes32(expected), "word");
        assertEq(nums.start(), start, "start");
        assertEq(nums.end(), end, "end");
        assertEq(nums.window(), window, "window");
        assertEq(nums.timeout(), timeout, "timeout");
        assertEq(nums.price(), price, "price");
        assertEq(nums.fee(), fee, "fee");
    }

    function testFuzz_Account(AccountFields memory f, uint96 amount, uint8 bit, uint32 page) external pure {
        Account a = _pack(f);
        assertEq(a.free(), f.free, "free");
        assertEq(a.active(), f.active, "active");
        assertEq(a.page(), f.page, "page");
        assertEq(a.used(), f.used, "used");

        bit %= 112;
        assertEq(a.isUsed(bit), (f.used >> bit) & 1 == 1, "isUsed");
        f.used |= uint112(1) << bit;
        a = a.use(bit);
        _same(a, f, "use");
        f.page = page;
        f.used = 0;
        a = a.withPage(page);
        _same(a, f, "withPage");

        amount = uint96(bound(amount, 0, f.free));
        f.free -= amount;
        a = a.debit(amount);
        _same(a, f, "debit");
        f.free += amount;
        a = a.credit(amount);
        _same(a, f, "credit");
        if (f.active < type(uint16).max) {
            f.active += 1;
            a = a.activate();
            _same(a, f, "activate");
            f.active -= 1;
            a = a.deactivate();
            _same(a, f, "deactivate");
        }
    }

    function _pack(StateFields memory f) private pure returns (State) {
        bytes memory packed = abi.encodePacked(f.status, f.settled, f.accepted, f.claimed, f.t, f.tip);
        return State.wrap(uint256(bytes32(packed)));
    }

    function _pack(State s) private pure returns (StateFields memory) {
        return
            StateFields(
                s.status(), uint16(s.settled()), uint16(s.accepted()), uint16(s.claimed()), uint40(s.t()), s.tip()
            );
    }

    function _same(StateFields memory got, StateFields memory expected, string memory what) private pure {
        assertEq(bytes32(State.unwrap(_pack(got))), bytes32(State.unwrap(_pack(expected))), what);
    }

    function _pack(AccountFields memory f) private pure returns (Account) {
        return Account.wrap(uint256(bytes32(abi.encodePacked(f.free, f.active, f.page, f.used))));
    }

    function _same(Account got, AccountFields memory expected, string memory what) private pure {
        assertEq(bytes32(Account.unwrap(got)), bytes32(Account.unwrap(_pack(expected))), what);
    }
}
