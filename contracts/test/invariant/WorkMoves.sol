// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.28;

import {Approval, IEscrow, Phase, Reason, Redemption, Terms} from "../../src/interfaces/IEscrow.sol";
import {Model} from "./Model.sol";

/// @notice The moves by which work is claimed, approved and paid.
abstract contract WorkMoves is Model {
    function claim(uint256 which, uint256 count, uint256 how) external {
        if (leases.length == 0) return;
        Lease storage l = _pick(which);
        _sync(l);
        bool signed = how % 3 == 0;
        count = bound(count, 0, 3);
        bool ok = count != 0 && l.claimed + count <= _lastIndex(l.terms.nums);
        if (signed) ok = ok && l.phase == Phase.Active && _stands(l.terms.provider);
        else ok = ok && (l.phase == Phase.Active || (l.phase == Phase.Closing && !l.claimedInClosing));
        bytes32[] memory roots = _newRoots(which, count);
        bytes memory input = signed ? _claimSigned(l, roots) : _claim(l, roots);
        if (ok) _claimed(l, roots);
        _call(signed ? address(this) : l.terms.provider, input, ok, "claim");
    }

    function _claim(Lease storage l, bytes32[] memory roots) private view returns (bytes memory) {
        Terms memory terms = l.terms;
        uint16 n = uint16(l.claimed + roots.length);
        bytes20 tip = _extended(l.claimedTip, roots);
        return abi.encodeCall(
            IEscrow.claim, (terms.provider, terms.nums, terms.askPrice, _hash(terms.parties), n, tip, roots)
        );
    }

    function _claimSigned(Lease storage l, bytes32[] memory roots) private view returns (bytes memory) {
        Terms memory terms = l.terms;
        bytes20 tip = _extended(l.claimedTip, roots);
        bytes memory signature =
            _sign(terms.provider, escrow.hashClaim(_id(terms), uint16(l.claimed + roots.length), tip));
        return abi.encodeCall(
            IEscrow.claimSigned,
            (terms.provider, terms.nums, terms.askPrice, _hash(terms.parties), roots, signature)
        );
    }

    function _claimed(Lease storage l, bytes32[] memory roots) private {
        ++calls["claimed"];
        if (l.phase == Phase.Closing) l.claimedInClosing = true;
        l.claimed += roots.length;
        l.claimedTip = _extended(l.claimedTip, roots);
        l.t = block.timestamp;
        for (uint256 i; i < roots.length; ++i) {
            l.pending.push(roots[i]);
        }
    }

    // ---------------------------------------------------------------- redeem

    function redeem(uint256 which, uint256 n, uint256 how) external {
        if (leases.length == 0) return;
        Lease storage l = _pick(which);
        address sender = how % 2 == 0 ? l.terms.provider : address(this);
        Redemption memory item = _approval(l, n, how);
        bool ok = _foretell(l, item.approval, sender);
        _call(sender, abi.encodeCall(IEscrow.redeem, (item)), ok, "redeem");
    }

    /// @notice Up to five in one call, of one lease or of several, by a provider or by anyone.
    function redeemMany(uint256 which, uint256 n, uint256 how) external {
        if (leases.length == 0) return;
        Redemption[] memory items = new Redemption[](1 + how % 5);
        bool[] memory expected = new bool[](items.length);
        address sender = how % 2 == 0 ? _pick(which).terms.provider : address(this);
        for (uint256 i; i < items.length; ++i) {
            Lease storage l = _pick(_part(which, i / 2));
            items[i] = _approval(l, _part(n, i), _part(how, i));
            expected[i] = _foretell(l, items[i].approval, sender);
            ++calls[expected[i] ? "redeemed in batches" : "refused to redeem in batches"];
        }
        vm.prank(sender);
        Reason[] memory reasons = escrow.redeemBatch(items);
        for (uint256 i; i < items.length; ++i) {
            assertEq(uint8(reasons[i]) == 0, expected[i], "redeemBatch");
        }
        checkBalances();
    }

    function _approval(Lease storage l, uint256 n, uint256 how) internal returns (Redemption memory item) {
        _sync(l);
        n = bound(n, l.accepted, l.claimed + 2);
        if (n > _lastIndex(l.terms.nums) + 1) n = _lastIndex(l.terms.nums) + 1;
        bytes20 tip = n == l.claimed ? l.claimedTip : bytes20(keccak256(abi.encode("tip", how, n)));
        item.terms = l.terms;
        item.approval = Approval(uint16(n), tip, how % 3 == 0);
        item.signature = _sign(l.terms.parties.approver, escrow.hashApproval(_id(l.terms), item.approval));
    }

    /// @dev Redeems it in the model, if the escrow has to.
    function _foretell(Lease storage l, Approval memory approval, address sender) private returns (bool) {
        uint256 n = approval.n;
        uint256 end = _lastIndex(l.terms.nums);
        bool stop = approval.last && sender == l.terms.provider;
        bool ok = _isLive(l) && n >= l.claimed && (n > l.accepted || stop) && n <= end;
        // No contract can approve.
        if (!ok || l.terms.parties.approver == address(wallet)) return false;
        ++calls[stop ? "redeemed the last" : "redeemed"];
        if (n > l.accepted) {
            l.accepted = l.claimed = n;
            l.acceptedTip = l.claimedTip = approval.tip;
            delete l.pending;
            if (l.phase == Phase.Active) l.t = block.timestamp;
            else l.late = false;
        }
        _pay(l);
        if (stop || n == end) _exit(l, l.terms.parties.stake, 0);
        return true;
    }

    // ---------------------------------------------------------------- collect

    function collect(uint256 which) external {
        if (leases.length == 0) return;
        Lease storage l = which % 2 == 0 ? _pick(which) : _pickIn(Phase.Challenged, which);
        _sync(l);
        bool ok = (_isLive(l) || l.phase == Phase.Challenged) && l.accepted > l.settled;
        bytes memory input = abi.encodeCall(IEscrow.collect, (l.terms));
        if (ok) {
            ++calls[l.phase == Phase.Challenged ? "collected while challenged" : "collected"];
            _pay(l);
            if (l.accepted == _lastIndex(l.terms.nums)) _exit(l, l.terms.parties.stake, 0);
        }
        _call(address(this), input, ok, "collect");
    }
}
