// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.28;

import {Approval, IEscrow, Phase, Redemption, Terms} from "../../src/interfaces/IEscrow.sol";
import {Model} from "./Model.sol";

/// @notice The moves of a dispute.
abstract contract DisputeMoves is Model {
    uint256 private _depth;

    /// @dev What the arbiter does when it calls back: any of the moves below, or of the others.
    function _reentered(uint256 seed) internal virtual;

    // ---------------------------------------------------------------- challenges

    function challenge(uint256 which, uint256 who, uint256 k) external {
        if (leases.length == 0) return;
        Lease storage l = _pickClaimed(which);
        _sync(l);
        address challenger = _challenger(l, who);
        k = _disputed(l, k, l.pending.length);
        bool ok = _isLive(l) && l.pending.length != 0 && k > l.accepted && k <= l.claimed;
        bytes memory input = abi.encodeCall(
            IEscrow.challenge, (l.terms, rules[l.rules], l.acceptedTip, l.pending, uint16(k), uint8(who % 2))
        );
        ok = _dispute(l, challenger, l.pending.length, k, ok);
        if (ok) ++calls["challenged"];
        _restlessly(challenger, input, ok, who);
    }

    /// @notice Of a Claim that goes on from some of the pending roots, or from none.
    function challengeSigned(uint256 which, uint256 who, uint256 k) external {
        if (leases.length == 0) return;
        Lease storage l = which % 2 == 0 ? _pick(which) : _pickClaimed(which);
        _sync(l);
        address challenger = _challenger(l, who);
        bytes32[] memory roots = _signedRoots(l, _part(who, 2));
        bytes memory signature;
        {
            bytes20 tip = _extended(l.acceptedTip, roots);
            bytes32 digest = escrow.hashClaim(_id(l.terms), uint16(l.accepted + roots.length), tip);
            signature = _sign(l.terms.provider, digest);
        }
        k = _disputed(l, k, roots.length);
        bool ok = l.phase == Phase.Active
            || (l.phase == Phase.Closing && block.timestamp < l.t + rules[l.rules].window);
        ok = ok && _stands(l.terms.provider) && l.accepted + roots.length <= _lastIndex(l.terms.nums)
            && k > l.accepted && k <= l.accepted + roots.length;
        bytes memory input = abi.encodeCall(
            IEscrow.challengeSigned,
            (l.terms, rules[l.rules], l.acceptedTip, l.pending, roots, uint16(k), uint8(who % 2), signature)
        );
        bool withPending = l.pending.length != 0;
        ok = _dispute(l, challenger, roots.length, k, ok);
        if (ok) ++calls[withPending ? "challenged a signed one above a pending one" : "challenged a signed one"];
        _restlessly(challenger, input, ok, who);
    }

    function _signedRoots(Lease storage l, uint256 seed) private view returns (bytes32[] memory roots) {
        uint256 same = seed % 3 == 0 ? 0 : _part(seed, 0) % (l.pending.length + 1);
        bytes32[] memory others = _newRoots(seed, _part(seed, 1) % 4);
        roots = new bytes32[](same + others.length);
        for (uint256 i; i < roots.length; ++i) {
            roots[i] = i < same ? l.pending[i] : others[i - same];
        }
    }

    /// @dev One of the lease's parties as often as anyone.
    function _challenger(Lease storage l, uint256 seed) private view returns (address) {
        uint256 role = _part(seed, 1) % 8;
        if (role == 0) return l.terms.parties.client;
        if (role == 1) return l.terms.parties.approver;
        if (role == 2) return l.terms.provider;
        if (role == 3) return l.terms.parties.feeTo;
        return _actor(seed, 0);
    }

    /// @dev Mostly an index that can be disputed.
    function _disputed(Lease storage l, uint256 seed, uint256 count) private view returns (uint256) {
        uint256 over = _part(seed, 0) % 16 == 0 ? 2 : 0;
        return l.accepted + (over == 0 ? 1 : 0) + (count + over == 0 ? 0 : seed % (count + over));
    }

    /// @dev Makes it a dispute in the model, if all else fits and there is the bond.
    function _dispute(Lease storage l, address challenger, uint256 count, uint256 k, bool ok) private returns (bool) {
        if (count < l.pending.length) count = l.pending.length;
        uint256 bond = _price(l.terms.nums) * count;
        bool party = challenger == l.terms.parties.client || challenger == l.terms.parties.approver;
        if (party && bond > l.terms.parties.stake) {
            bond = l.terms.parties.stake;
            if (ok) ++calls["bounded a bond"];
        }
        bond += rules[l.rules].arbiterFee;
        if (!ok || balances[challenger] < bond) return false;
        l.fromClosing = l.phase == Phase.Closing;
        l.phase = Phase.Challenged;
        l.t = block.timestamp;
        l.challenger = challenger;
        l.bond = bond;
        l.k = k;
        l.verdict = 0;
        _take(l, challenger, bond);
        if (challenger == l.terms.provider) ++calls["challenged itself"];
        return true;
    }

    /// @dev The arbiter calls back now and then, in the midst of what others do too.
    function _restlessly(address challenger, bytes memory input, bool ok, uint256 seed) private {
        bool restless = ok && _depth < 2 && _part(seed, 5) % 2 == 0;
        bytes memory back = abi.encodeCall(this.reenter, (_part(seed, 6)));
        arbiter.callBack(restless ? address(this) : address(0), back);
        uint256 before = calls["called back"];
        _call(challenger, input, ok, "challenge");
        assertTrue(!restless || calls["called back"] > before, "called back");
    }

    /// @notice The arbiter's call, within `open`: all that the challenge itself does is done.
    function reenter(uint256 seed) external {
        assertEq(msg.sender, address(arbiter), "the arbiter");
        ++calls["called back"];
        ++_depth;
        checkBalances();
        for (uint256 i; i < 3; ++i) {
            _reentered(_part(seed, i));
        }
        --_depth;
    }

    // ---------------------------------------------------------------- Approvals

    function redeemChallenged(uint256 which, uint256 n, uint256 how) external {
        if (leases.length == 0) return;
        Lease storage l = _pickIn(Phase.Challenged, which);
        n = bound(n, l.accepted, l.claimed + 2);
        if (n > _lastIndex(l.terms.nums) + 1) n = _lastIndex(l.terms.nums) + 1;
        bool below = l.phase == Phase.Challenged && n > l.accepted && n < l.claimed;
        bytes20 tip = bytes20(keccak256(abi.encode("tip", how, n)));
        bool onChain = below && how % 4 != 0;
        if (onChain) tip = _extended(l.acceptedTip, _pending(l, 0, n - l.accepted));
        bytes32[] memory pending = _pending(l, 0, l.pending.length);
        bool whole = pending.length == 0 || _part(how, 3) % 8 != 0;
        if (!whole) pending[pending.length - 1] ^= bytes32(uint256(1));

        Redemption memory item;
        item.terms = l.terms;
        item.approval = Approval(uint16(n), tip, how % 3 == 0);
        item.signature = _sign(l.terms.parties.approver, escrow.hashApproval(_id(l.terms), item.approval));
        bool ok = l.phase == Phase.Challenged && n > l.accepted && n <= _lastIndex(l.terms.nums)
            && l.terms.parties.approver != address(wallet) && (!below || (onChain && whole));
        bytes memory input = abi.encodeCall(IEscrow.redeemChallenged, (item, rules[l.rules], pending));
        if (ok) _approvedInDispute(l, n, tip);
        _call(how % 2 == 0 ? l.terms.provider : address(this), input, ok, "redeemChallenged");
    }

    function _pending(Lease storage l, uint256 from, uint256 to) private view returns (bytes32[] memory roots) {
        roots = new bytes32[](to - from);
        for (uint256 i; i < roots.length; ++i) {
            roots[i] = l.pending[from + i];
        }
    }

    function _approvedInDispute(Lease storage l, uint256 n, bytes20 tip) private {
        ++calls[n < l.k ? "approved below the disputed" : "withdrawn"];
        if (n < l.claimed) {
            ++calls["approved below the claimed"];
            l.pending = _pending(l, n - l.accepted, l.pending.length);
        } else {
            l.claimed = n;
            l.claimedTip = tip;
            delete l.pending;
        }
        l.accepted = n;
        l.acceptedTip = tip;
        if (l.fromClosing) l.late = false;
        if (n >= l.k) {
            uint256 fee = rules[l.rules].arbiterFee;
            _give(l, address(arbiter), fee);
            _give(l, l.challenger, l.bond - fee);
            l.bond = 0;
            _revive(l);
        }
        _pay(l);
        if (n == _lastIndex(l.terms.nums)) _exit(l, l.terms.parties.stake, 0);
    }

    // ---------------------------------------------------------------- verdicts

    function rule(uint256 which, uint256 verdict) external {
        if (leases.length != 0) _rule(_pickIn(Phase.Challenged, which), verdict % 6);
    }

    /// @param verdict 5: what is no verdict
    function _rule(Lease storage l, uint256 verdict) internal {
        if (l.phase != Phase.Challenged || (l.verdict != 0 && l.verdict != 5)) return;
        (bytes32 id,,,) = escrow.dispute(_id(l.terms));
        l.verdict = uint8(verdict);
        arbiter.rule(id, l.verdict);
    }

    function resolve(uint256 which) external {
        if (leases.length != 0) _resolve(_pickIn(Phase.Challenged, which));
    }

    function _resolve(Lease storage l) internal {
        bool spoken = l.verdict != 0 && l.verdict != 5;
        bool ok = l.phase == Phase.Challenged && (spoken || block.timestamp >= l.t + ARBITER_TIMEOUT);
        bytes memory input = abi.encodeCall(IEscrow.resolve, (l.terms, rules[l.rules]));
        if (ok) _resolved(l, spoken ? l.verdict : 0);
        _call(address(this), input, ok, "resolve");
    }

    function _resolved(Lease storage l, uint256 verdict) private {
        uint256 fee = rules[l.rules].arbiterFee;
        uint256 stake = l.terms.parties.stake;
        uint256 bond = l.bond;
        l.bond = 0;
        ++calls[["silent", "true", "false", "void", "unreproducible"][verdict]];
        _give(l, verdict == 0 ? l.challenger : address(arbiter), fee);
        if (verdict == 1) {
            _give(l, l.terms.provider, bond - fee);
            _revive(l);
            return;
        }
        _void(l);
        if (verdict == 0) {
            _exit(l, stake + bond - fee, 0);
        } else if (verdict == 2) {
            uint256 reward = (stake - fee) / 5;
            _give(l, l.challenger, bond + reward);
            _exit(l, 0, stake - fee - reward);
        } else if (verdict == 3) {
            _give(l, l.challenger, bond);
            _give(l, NOBODY, stake - fee);
            _exit(l, 0, 0);
        } else {
            _give(l, l.challenger, bond - fee);
            _exit(l, stake, 0);
        }
    }
}
