// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.28;

import {Phase} from "../interfaces/IEscrow.sol";

/// status8 | settled16 | accepted16 | claimed16 | t40 | tip160, the first in the highest bits.
type State is uint256;

using StateLib for State global;

/// @dev A lease's slot. Values given to the setters have been checked to fit.
library StateLib {
    // The status byte is a phase and these.
    uint256 internal constant FROM_CLOSING = 0x08;
    uint256 internal constant BY_CLIENT = 0x10;
    uint256 internal constant LATE = 0x20;
    uint256 internal constant MORE = 0x40;
    uint256 internal constant CLAIMED_IN_CLOSING = 0x80;

    uint256 private constant PHASE = 0x07;
    uint256 private constant MASK16 = 0xffff;
    uint256 private constant MASK40 = 0xffffffffff;
    uint256 private constant MASK160 = type(uint160).max;

    /// @dev Where a lease begins: nothing claimed, nothing paid, the clock at now.
    function start(uint256 index, bytes20 tip_, bool more) internal view returns (State) {
        uint256 status_ = uint256(Phase.Active) | (more ? MORE : 0);
        return State.wrap(
            (status_ << 248) | (index << 232) | (index << 216) | (index << 200) | (block.timestamp << 160)
                | uint160(tip_)
        );
    }

    function status(State s) internal pure returns (uint8) {
        return uint8(State.unwrap(s) >> 248);
    }

    function isIn(State s, Phase p) internal pure returns (bool) {
        return (State.unwrap(s) >> 248) & PHASE == uint256(p);
    }

    function has(State s, uint256 flag) internal pure returns (bool) {
        return State.unwrap(s) & (flag << 248) != 0;
    }

    function settled(State s) internal pure returns (uint256) {
        return uint16(State.unwrap(s) >> 232);
    }

    function accepted(State s) internal pure returns (uint256) {
        return uint16(State.unwrap(s) >> 216);
    }

    function claimed(State s) internal pure returns (uint256) {
        return uint16(State.unwrap(s) >> 200);
    }

    function t(State s) internal pure returns (uint256) {
        return uint40(State.unwrap(s) >> 160);
    }

    function tip(State s) internal pure returns (bytes20) {
        return bytes20(uint160(State.unwrap(s)));
    }

    function isPending(State s) internal pure returns (bool) {
        return s.claimed() > s.accepted();
    }

    function isLive(State s) internal pure returns (bool) {
        unchecked {
            // Active is 1 and Closing 2.
            return ((State.unwrap(s) >> 248) & PHASE) - 1 < 2;
        }
    }

    /// @dev Whether the lease counts in its provider's `active`.
    function isActive(State s) internal pure returns (bool) {
        return s.isIn(Phase.Active) || (s.isIn(Phase.Challenged) && !s.has(FROM_CLOSING));
    }

    /// @dev What a passed window has accepted. Progress while Closing excuses a late provider.
    function sync(State s, uint256 window) internal view returns (State) {
        unchecked {
            if (!s.isPending() || !s.isLive() || block.timestamp < s.t() + window) return s;
        }
        s = s.withAccepted(s.claimed());
        return s.isIn(Phase.Closing) ? s.without(LATE) : s;
    }

    function withPhase(State s, Phase p) internal pure returns (State) {
        return State.wrap((State.unwrap(s) & ~(PHASE << 248)) | (uint256(p) << 248));
    }

    function with(State s, uint256 flag) internal pure returns (State) {
        return State.wrap(State.unwrap(s) | (flag << 248));
    }

    function without(State s, uint256 flag) internal pure returns (State) {
        return State.wrap(State.unwrap(s) & ~(flag << 248));
    }

    function withSettled(State s, uint256 n) internal pure returns (State) {
        return State.wrap((State.unwrap(s) & ~(MASK16 << 232)) | (n << 232));
    }

    function withAccepted(State s, uint256 n) internal pure returns (State) {
        return State.wrap((State.unwrap(s) & ~(MASK16 << 216)) | (n << 216));
    }

    function withClaimed(State s, uint256 n) internal pure returns (State) {
        return State.wrap((State.unwrap(s) & ~(MASK16 << 200)) | (n << 200));
    }

    function withTimeNow(State s) internal view returns (State) {
        return State.wrap((State.unwrap(s) & ~(MASK40 << 160)) | (block.timestamp << 160));
    }

    function withTip(State s, bytes20 newTip) internal pure returns (State) {
        return State.wrap((State.unwrap(s) & ~MASK160) | uint160(newTip));
    }

    /// @dev Phase Closed without flags; all that was accepted is paid and nothing is pending.
    function asClosed(State s) internal pure returns (State) {
        uint256 n = s.accepted();
        uint256 rest = State.unwrap(s) & ((1 << 200) - 1);
        return State.wrap((uint256(Phase.Closed) << 248) | (n << 232) | (n << 216) | (n << 200) | rest);
    }
}
