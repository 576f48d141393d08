// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.28;

import {Escrow} from "../../src/Escrow.sol";
import {Approval, IEscrow, Phase, Redemption, Terms} from "../../src/interfaces/IEscrow.sol";
import {DevToken} from "../../src/periphery/DevToken.sol";
import {Checks} from "./Checks.sol";
import {Model} from "./Model.sol";
import {OpenMoves} from "./OpenMoves.sol";

/// @notice Random parties make random moves. The model foretells which call goes through, and each call is checked
/// against that.
contract Handler is OpenMoves, Checks {
    constructor(Escrow escrow_, DevToken token_) Model(escrow_, token_) {}

    /// @notice All that a game is made of; what moves leases on comes up more often.
    function moves() external pure returns (bytes4[] memory m) {
        m = new bytes4[](21);
        (m[0], m[1], m[2], m[3]) =
        (this.deposit.selector, this.withdraw.selector, this.donate.selector, this.warp.selector);
        (m[4], m[5], m[6]) = (this.open.selector, this.open.selector, this.continueLease.selector);
        (m[7], m[8], m[9]) = (this.claim.selector, this.claim.selector, this.claim.selector);
        (m[10], m[11], m[12]) = (this.redeem.selector, this.collect.selector, this.end.selector);
        (m[13], m[14], m[15]) = (this.close.selector, this.challenge.selector, this.rule.selector);
        (m[16], m[17], m[18]) = (this.resolve.selector, this.warp.selector, this.continueLease.selector);
        (m[19], m[20]) = (this.challenge.selector, this.raisePage.selector);
    }

    // ---------------------------------------------------------------- balances

    function deposit(uint256 actor, uint256 amount) external {
        actor %= ACTORS;
        amount = bound(amount, 0, token.balanceOf(accounts[actor]));
        if (amount != 0) _deposit(actor, amount);
    }

    function withdraw(uint256 actor, uint256 amount) external {
        address owner = accounts[actor % accounts.length];
        amount = bound(amount, 0, balances[owner] / 4 + 1);
        bool ok = amount != 0 && amount <= balances[owner];
        _call(owner, abi.encodeCall(IEscrow.withdraw, (owner, amount)), ok, "withdraw");
        if (ok) balances[owner] -= amount;
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

    function warp(uint256 by) external {
        vm.warp(block.timestamp + bound(by, 1, WINDOW / 2));
    }

    // ---------------------------------------------------------------- work

    function claim(uint256 which, uint256 count, uint256 how) external {
        bool signed = how % 3 == 0;
        if (leases.length == 0) return;
        Lease storage l = _pick(which);
        _sync(l);
        count = bound(count, 0, 3);
        bool ok = count != 0 && l.claimed + count <= _lastIndex(l.terms.nums);
        ok = ok && (l.phase == Phase.Active || (l.phase == Phase.Closing && !signed && !l.claimedInClosing));
        bytes32[] memory roots = new bytes32[](count);
        for (uint256 i; i < count; ++i) {
            roots[i] = keccak256(abi.encode(which, block.timestamp, i));
        }
        bytes20 tip = _extended(l.claimedTip, roots);
        _snapshot();
        _claim(l, roots, tip, signed, ok);
        if (!ok) return;
        ++calls["claimed"];
        if (l.phase == Phase.Closing) l.claimedInClosing = true;
        l.claimed += count;
        l.claimedTip = tip;
        l.t = block.timestamp;
        for (uint256 i; i < count; ++i) {
            l.pending.push(roots[i]);
        }
        _moved(l, address(0), address(0));
    }

    function _claim(Lease storage l, bytes32[] memory roots, bytes20 tip, bool signed, bool ok) private {
        Terms memory terms = l.terms;
        bytes32 parties = _hash(terms.parties);
        if (!signed) {
            uint16 n = uint16(l.claimed + roots.length);
            bytes memory input = abi.encodeCall(IEscrow.claim, (terms.provider, terms.nums, terms.askPrice, parties, n, tip, roots));
            _call(terms.provider, input, ok, "claim");
            return;
        }
        bytes32 digest = escrow.hashClaim(_id(terms), uint16(l.claimed + roots.length), tip);
        bytes memory signature = _sign(terms.provider, digest);
        _call(
            address(this),
            abi.encodeCall(IEscrow.claimSigned, (terms.provider, terms.nums, terms.askPrice, parties, roots, signature)),
            ok,
            "claimSigned"
        );
    }

    function redeem(uint256 which, uint256 n, uint256 how) external {
        if (leases.length == 0) return;
        Lease storage l = _pick(which);
        _sync(l);
        n = bound(n, l.accepted, l.claimed + 2);
        if (n > _lastIndex(l.terms.nums) + 1) n = _lastIndex(l.terms.nums) + 1;
        bool byProvider = how % 2 == 0;
        bool stop = byProvider && how % 3 == 0;
        bool ok = (l.phase == Phase.Active || l.phase == Phase.Closing) && n >= l.claimed && (n > l.accepted || stop)
            && n <= _lastIndex(l.terms.nums);
        bytes20 tip = n == l.claimed ? l.claimedTip : bytes20(keccak256(abi.encode("tip", which, n)));
        _snapshot();
        _redeem(l, Approval(uint16(n), tip, how % 3 == 0), byProvider, how % 5 < 2, ok);
        if (!ok) return;
        ++calls["redeemed"];
        if (n > l.accepted) {
            l.accepted = l.claimed = n;
            l.acceptedTip = l.claimedTip = tip;
            delete l.pending;
            if (l.phase == Phase.Active) l.t = block.timestamp;
            else l.late = false;
        }
        _pay(l);
        if (stop || n == _lastIndex(l.terms.nums)) _exit(l, l.terms.parties.stake, 0);
        _moved(l, address(0), address(0));
    }

    function _redeem(Lease storage l, Approval memory approval, bool byProvider, bool batch, bool ok) private {
        Redemption[] memory items = new Redemption[](1);
        items[0].terms = l.terms;
        items[0].approval = approval;
        items[0].signature = _sign(l.terms.parties.approver, escrow.hashApproval(_id(l.terms), approval));
        address sender = byProvider ? l.terms.provider : address(this);
        if (batch) {
            vm.prank(sender);
            assertEq(uint8(escrow.redeemBatch(items)[0]) == 0, ok, "redeemBatch");
        } else {
            _call(sender, abi.encodeCall(IEscrow.redeem, (items[0])), ok, "redeem");
        }
    }

    function collect(uint256 which) external {
        if (leases.length == 0) return;
        Lease storage l = _pick(which);
        _sync(l);
        bool live = l.phase == Phase.Active || l.phase == Phase.Closing || l.phase == Phase.Challenged;
        bool ok = live && l.accepted > l.settled;
        _snapshot();
        _call(address(this), abi.encodeCall(IEscrow.collect, (l.terms)), ok, "collect");
        if (!ok) return;
        ++calls["collected"];
        _pay(l);
        if (l.accepted == _lastIndex(l.terms.nums)) _exit(l, l.terms.parties.stake, 0);
        _moved(l, address(0), address(0));
    }

    // ---------------------------------------------------------------- ends

    function end(uint256 which, uint256 by) external {
        if (leases.length != 0) _end(_pick(which), by);
    }

    function _end(Lease storage l, uint256 by) private {
        _sync(l);
        address sender = address(this);
        if (by % 8 == 0) sender = l.terms.provider;
        if (by % 8 == 1) sender = l.terms.parties.client;
        bool byClient = sender == l.terms.parties.client;
        bool late = l.claimed == l.accepted && block.timestamp >= l.t + TIMEOUT;
        bool party = byClient || sender == l.terms.provider;
        bool ok = (l.phase == Phase.Active && (party || late)) || (l.phase == Phase.Closed && byClient);
        _snapshot();
        _call(sender, abi.encodeCall(IEscrow.end, (l.terms)), ok, "end");
        if (!ok) return;
        ++calls["ended"];
        if (l.phase == Phase.Closed) {
            l.phase = Phase.None;
        } else {
            l.phase = Phase.Closing;
            l.t = block.timestamp;
            l.byClient = byClient;
            l.late = late;
        }
        _moved(l, address(0), address(0));
    }

    function close(uint256 which) external {
        if (leases.length != 0) _close(_pick(which));
    }

    function _close(Lease storage l) private {
        _sync(l);
        bool ok = l.phase == Phase.Closing && block.timestamp >= l.t + rules[l.rules].window;
        _snapshot();
        _call(address(this), abi.encodeCall(IEscrow.close, (l.terms)), ok, "close");
        if (!ok) return;
        ++calls["closed"];
        assertEq(l.claimed, l.accepted, "nothing can be pending at a close");
        _pay(l);
        uint256 stake = l.terms.parties.stake;
        uint256 penalty = l.late ? _price(l.terms.nums) : 0;
        if (penalty > stake) penalty = stake;
        if (l.accepted == _lastIndex(l.terms.nums)) penalty = 0;
        _exit(l, stake - penalty, penalty);
        _moved(l, address(0), address(0));
    }

    function challenge(uint256 which, uint256 who, uint256 k) external {
        if (leases.length == 0) return;
        Lease storage l = _pick(which);
        _sync(l);
        uint256 pending = l.claimed - l.accepted;
        uint256 bond = rules[l.rules].arbiterFee + _price(l.terms.nums) * pending;
        address challenger = _actor(who, 0);
        bool ok = (l.phase == Phase.Active || l.phase == Phase.Closing) && pending != 0 && balances[challenger] >= bond;
        k = l.accepted + 1 + (pending == 0 ? 0 : k % pending);
        _snapshot();
        bytes memory input = abi.encodeCall(
            IEscrow.challenge, (l.terms, rules[l.rules], l.acceptedTip, l.pending, uint16(k), uint8(who % 2))
        );
        _call(challenger, input, ok, "challenge");
        if (!ok) return;
        ++calls["challenged"];
        l.fromClosing = l.phase == Phase.Closing;
        l.phase = Phase.Challenged;
        l.t = block.timestamp;
        l.challenger = challenger;
        l.bond = bond;
        l.verdict = 0;
        balances[challenger] -= bond;
        _moved(l, challenger, address(0));
    }

    function rule(uint256 which, uint256 verdict) external {
        if (leases.length == 0) return;
        Lease storage l = _pick(which);
        if (l.phase != Phase.Challenged || l.verdict != 0) return;
        (bytes32 id,,,) = escrow.dispute(_id(l.terms));
        l.verdict = uint8(verdict % 4 == 3 ? 2 : verdict % 4);
        arbiter.rule(id, l.verdict);
    }

    function resolve(uint256 which) external {
        if (leases.length != 0) _resolve(_pick(which));
    }

    function _resolve(Lease storage l) private {
        bool ok = l.phase == Phase.Challenged && (l.verdict != 0 || block.timestamp >= l.t + ARBITER_TIMEOUT);
        _snapshot();
        _call(address(this), abi.encodeCall(IEscrow.resolve, (l.terms, rules[l.rules])), ok, "resolve");
        if (!ok) return;
        uint256 fee = rules[l.rules].arbiterFee;
        uint256 stake = l.terms.parties.stake;
        if (l.verdict == 1) {
            ++calls["true"];
            l.phase = l.fromClosing ? Phase.Closing : Phase.Active;
            l.t = block.timestamp;
            balances[address(arbiter)] += fee;
            balances[l.terms.provider] += l.bond - fee;
        } else if (l.verdict == 2) {
            ++calls["false"];
            uint256 reward = (stake - fee) / 5;
            balances[address(arbiter)] += fee;
            balances[l.challenger] += l.bond + reward;
            _void(l);
            _exit(l, 0, stake - fee - reward);
        } else {
            ++calls["silent"];
            balances[l.challenger] += fee;
            _void(l);
            _exit(l, stake + l.bond - fee, 0);
        }
        l.bond = 0;
        l.fromClosing = false;
        _moved(l, address(0), address(0));
    }

    /// @notice A stranger takes every lease to its end, in the time that the protocol promises; all withdraw.
    function finish() external {
        for (uint256 i; i < leases.length; ++i) {
            Lease storage l = leases[i];
            if (l.phase == Phase.Challenged) {
                if (l.verdict == 0) vm.warp(block.timestamp + ARBITER_TIMEOUT);
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
            if (balances[owner] == 0) continue;
            vm.prank(owner);
            escrow.withdraw(owner, balances[owner]);
            balances[owner] = 0;
        }
    }
}
