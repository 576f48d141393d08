// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.28;

import {Phase} from "../../src/interfaces/IEscrow.sol";
import {Model} from "./Model.sol";

/// @notice The invariants of docs/protocol.md section 5 that are looked at between moves, by number.
abstract contract Checks is Model {
    /// @notice 1: every token is somebody's, or was sent unasked.
    function checkSolvency() public view {
        uint256 owed = donated;
        for (uint256 i; i < accounts.length; ++i) {
            owed += _free(accounts[i]);
        }
        for (uint256 i; i < leases.length; ++i) {
            owed += _heldFor(leases[i]);
        }
        assertEq(token.balanceOf(address(escrow)), owed, "held");
    }

    /// @dev From the escrow's own word on the lease.
    function _heldFor(Lease storage l) private view returns (uint256 held) {
        bytes32 id = _id(l.terms);
        (uint8 status, uint16 settled,,,,) = escrow.state(id);
        uint8 phase = status & 7;
        if (phase == 0 || phase == uint8(Phase.Closed)) return 0;
        held = (_lastIndex(l.terms.nums) - settled) * (_price(l.terms.nums) + l.bid.fee) + l.terms.parties.stake;
        (,, uint96 bond,) = escrow.dispute(id);
        held += bond;
    }

    /// @notice 4, and all that the escrow stores of a lease, against the model.
    function checkLeases() public view {
        for (uint256 i; i < leases.length; ++i) {
            _checkLease(leases[i]);
        }
    }

    function _checkLease(Lease storage l) private view {
        (uint8 status, uint16 settled, uint16 accepted, uint16 claimed, uint40 t, bytes20 tip) =
            escrow.state(_id(l.terms));
        assertEq(status & 7, uint8(l.phase), "phase");
        if (l.phase == Phase.None) return;
        // What time has accepted is stored at the next call only.
        bool due = accepted < l.accepted && l.claimed == l.accepted && l.phase != Phase.Closed;
        if (!due) {
            assertEq(accepted, l.accepted, "accepted");
            assertEq(status, _status(l), "status");
        }
        assertEq(settled, l.settled, "settled");
        assertEq(claimed, l.claimed, "claimed");
        assertLe(settled, accepted, "settled <= accepted");
        assertLe(accepted, claimed, "accepted <= claimed");
        assertLe(claimed, _lastIndex(l.terms.nums), "claimed <= end");
        assertEq(t, l.t, "t");
        bool disputed = l.phase == Phase.Challenged;
        assertEq(bytes32(tip), bytes32(disputed ? l.acceptedTip : l.claimedTip), "tip");
        assertEq(bytes32(_extended(l.acceptedTip, l.pending)), bytes32(l.claimedTip), "what is pending can be challenged");
        (bytes32 dispute, address challenger, uint96 bond, bytes20 claimedTip) = escrow.dispute(_id(l.terms));
        assertEq(dispute != 0, disputed, "a dispute while challenged, and no other time");
        assertEq(bond, disputed ? l.bond : 0, "bond");
        if (disputed) assertEq(challenger, l.challenger, "challenger");
        if (disputed) assertEq(bytes32(claimedTip), bytes32(l.claimedTip), "claimed tip");
    }

    function _status(Lease storage l) private view returns (uint256) {
        return uint8(l.phase) | (l.fromClosing ? FROM_CLOSING : 0) | (l.byClient ? BY_CLIENT : 0) | (l.late ? LATE : 0)
            | (l.more ? MORE : 0) | (l.claimedInClosing ? CLAIMED_IN_CLOSING : 0);
    }

    /// @notice 9
    function checkActive() public view {
        for (uint256 i; i < accounts.length; ++i) {
            (, uint16 active,,) = escrow.account(accounts[i]);
            assertEq(active, _activeOf(accounts[i]), "active");
        }
    }
}
