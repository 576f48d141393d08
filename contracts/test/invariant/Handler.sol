// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.28;

import {Escrow} from "../../src/Escrow.sol";
import {Approval, Ask, Bid, IEscrow, Match, Parties, Redemption, Rules, Terms} from "../../src/interfaces/IEscrow.sol";
import {DevToken} from "../../src/periphery/DevToken.sol";
import {ScriptedArbiter} from "../utils/Arbiters.sol";
import {Test} from "../utils/Test.sol";

/// @notice Random parties make random moves. Beside the escrow stands a plain model of the protocol's machine and of
/// everybody's balance; it foretells which call goes through, and each call is checked against that.
contract Handler is Test {
    enum Phase {
        None,
        Active,
        Closing,
        Closed,
        Challenged
    }

    struct Lease {
        Terms terms;
        Bid bid;
        uint256 rules;
        Phase phase;
        bool fromClosing;
        bool byClient;
        bool late;
        bool more;
        bool claimedInClosing;
        uint256 settled;
        uint256 accepted;
        uint256 claimed;
        uint256 t;
        bytes20 acceptedTip;
        bytes20 claimedTip;
        bytes32[] pending;
        address challenger;
        uint256 bond;
        uint8 verdict;
        /// What the parties' balances gave to the lease, less what came back.
        int256 net;
    }

    uint256 internal constant ACTORS = 5;
    uint32 internal constant WINDOW = 100;
    uint32 internal constant TIMEOUT = 150;
    uint32 internal constant ARBITER_TIMEOUT = 200;
    uint96 internal constant ARBITER_FEE = 7;

    Escrow public immutable escrow;
    DevToken public immutable token;
    address[] public accounts; // the actors, then the arbiter
    Rules[2] internal rules;
    ScriptedArbiter internal arbiter;
    Lease[] internal leases;
    uint256 public donated;
    mapping(address => uint256) public balances;
    mapping(address => uint32) internal pages;
    mapping(address => uint256) internal bits;
    mapping(bytes32 bid => mapping(uint256 index => bool)) internal paid;
    mapping(string => uint256) public calls;

    uint256[] private _before;

    constructor(Escrow escrow_, DevToken token_) {
        escrow = escrow_;
        token = token_;
        arbiter = new ScriptedArbiter();
        for (uint256 i; i < ACTORS; ++i) {
            accounts.push(vm.addr(i + 1));
            token.faucet(accounts[i], 100_000);
            vm.prank(accounts[i]);
            token.approve(address(escrow), type(uint256).max);
        }
        accounts.push(address(arbiter));
        for (uint256 i; i < ACTORS; ++i) {
            _deposit(i, 10_000);
        }
        rules[0] = Rules(address(arbiter), ARBITER_FEE, ARBITER_TIMEOUT, TIMEOUT, WINDOW, "v");
        // Without a fee, and with a window longer than the timeout.
        rules[1] = Rules(address(arbiter), 0, ARBITER_TIMEOUT, TIMEOUT, TIMEOUT + 50, "v");
    }

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

    function _deposit(uint256 actor, uint256 amount) private {
        vm.prank(accounts[actor]);
        escrow.deposit(accounts[actor], amount);
        balances[accounts[actor]] += amount;
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

    // ---------------------------------------------------------------- open

    function open(uint256 who, uint256 numbers) external {
        Match memory item;
        Bid memory bid = item.bid;
        bid.client = _actor(who, 0);
        bid.matcher = _actor(who, 1);
        bid.approver = who % 3 == 0 ? address(0) : _actor(who, 2);
        bid.job = keccak256(abi.encode("job", leases.length));
        bid.rules = escrow.hashRules(rules[numbers % 2]);
        bid.checkpoints = uint16(1 + _part(numbers, 1) % 20);
        bid.units = 1;
        bid.fee = uint64(_part(numbers, 2) % 3);
        bid.maxPrice = type(uint96).max;
        bid.stake = uint96(ARBITER_FEE + _part(numbers, 3) % 200);
        bid.validUntil = type(uint40).max;
        bid.nonce = uint40((uint256(pages[bid.client]) << 8) | (_part(numbers, 4) % 112));
        item.rules = numbers % 2;
        item.price = uint96(1 + _part(numbers, 5) % 100);
        _open(item, _actor(who, 3), numbers, 0, bytes20(bid.job));
    }

    /// @notice The next lease of a Bid, if the one drawn is Closed.
    function continueLease(uint256 which, uint256 who, uint256 numbers) external {
        if (leases.length == 0) return;
        Lease storage l = _pick(which);
        Match memory item;
        item.bid = l.bid;
        item.rules = l.rules;
        item.price = uint96(1 + _part(numbers, 5) % 100);
        item.prevProvider = l.terms.provider;
        item.prevNums = l.terms.nums;
        item.prevPrev = l.terms.parties.prev;
        bool ok = _open(item, _actor(who, 0), numbers, l.accepted, l.acceptedTip);
        if (!ok) return;
        assertTrue(l.phase == Phase.Closed, "only a Closed lease is continued");
        l.phase = Phase.None;
    }

    function _open(Match memory item, address provider, uint256 numbers, uint256 start, bytes20 tip)
        private
        returns (bool ok)
    {
        _askFor(item, provider, numbers);
        Terms memory terms = _terms(item, start);
        ok = _canOpen(item, terms, start);
        _snapshot();
        if (numbers % 5 < 3) {
            (Rules[] memory all, Match[] memory items) = (new Rules[](2), new Match[](1));
            (all[0], all[1], items[0]) = (rules[0], rules[1], item);
            vm.prank(item.bid.matcher);
            assertEq(uint8(escrow.openBatch(all, items)[0]) == 0, ok, "openBatch");
        } else {
            uint256 index = item.rules;
            item.rules = 0;
            _call(item.bid.matcher, abi.encodeCall(IEscrow.open, (rules[index], item)), ok, "open");
            item.rules = index;
        }
        if (!ok) return false;
        ++calls["opened"];
        _record(item, terms, start, tip);
    }

    function _askFor(Match memory item, address provider, uint256 numbers) private view {
        item.ask = Ask({
            provider: provider,
            matcher: address(0),
            resources: 0,
            rules: item.bid.rules,
            pricePerHour: 1,
            unitsPerHour: 1,
            maxStake: type(uint96).max,
            maxActive: 3,
            maxCheckpoints: uint16(1 + _part(numbers, 6) % 12),
            validFrom: 0,
            validUntil: type(uint40).max,
            page: pages[provider]
        });
        item.bidSignature = _sign(item.bid.client, escrow.hashBid(item.bid));
        item.askSignature = _sign(provider, escrow.hashAsk(item.ask));
    }

    function _canOpen(Match memory item, Terms memory terms, uint256 start) private view returns (bool) {
        Bid memory bid = item.bid;
        if (item.prevProvider == address(0)) {
            if (bits[bid.client] & (1 << (bid.nonce & 0xff)) != 0) return false;
        } else if (leases[_find(terms.parties.prev)].phase != Phase.Closed) {
            return false;
        }
        if (_activeOf(terms.provider) >= item.ask.maxActive) return false;
        uint256 cost = (uint256(item.price) + bid.fee) * (_lastIndex(terms.nums) - start);
        if (bid.client == terms.provider) return balances[bid.client] >= cost + bid.stake;
        return balances[bid.client] >= cost && balances[terms.provider] >= bid.stake;
    }

    function _record(Match memory item, Terms memory terms, uint256 start, bytes20 tip) private {
        Bid memory bid = item.bid;
        for (uint256 i; i < leases.length; ++i) {
            bool over = leases[i].phase == Phase.None || _id(leases[i].terms) == terms.parties.prev;
            assertTrue(over || leases[i].terms.parties.bid != terms.parties.bid, "one live lease a Bid");
        }
        Lease storage l = leases.push();
        l.terms = terms;
        l.bid = bid;
        l.rules = item.rules;
        l.phase = Phase.Active;
        l.more = _lastIndex(terms.nums) < bid.checkpoints;
        l.settled = l.accepted = l.claimed = start;
        l.t = block.timestamp;
        l.acceptedTip = l.claimedTip = tip;
        if (item.prevProvider == address(0)) bits[bid.client] |= 1 << (bid.nonce & 0xff);
        balances[bid.client] -= (uint256(item.price) + bid.fee) * (_lastIndex(terms.nums) - start);
        balances[terms.provider] -= bid.stake;
        _moved(l, bid.client, terms.provider);
    }

    function _terms(Match memory item, uint256 start) private view returns (Terms memory terms) {
        Bid memory bid = item.bid;
        uint256 end_ = start + item.ask.maxCheckpoints;
        if (end_ > bid.checkpoints) end_ = bid.checkpoints;
        Rules memory r = rules[item.rules];
        terms.provider = item.ask.provider;
        terms.nums = uint256(
            bytes32(abi.encodePacked(uint16(start), uint16(end_), r.window, r.checkpointTimeout, item.price, bid.fee))
        );
        address approver = bid.approver == address(0) ? bid.client : bid.approver;
        terms.parties = Parties(
            escrow.hashBid(bid), bid.job, item.prevPrev, bid.rules, bid.client, approver, bid.matcher, bid.stake
        );
        if (item.prevProvider != address(0)) {
            terms.parties.prev =
                keccak256(abi.encode(item.prevProvider, item.prevNums, keccak256(abi.encode(terms.parties))));
        }
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
        bytes20 tip = l.claimedTip;
        for (uint256 i; i < count; ++i) {
            roots[i] = keccak256(abi.encode(which, block.timestamp, i));
            tip = bytes20(keccak256(abi.encodePacked(tip, roots[i])));
        }
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
        bytes32 parties = keccak256(abi.encode(terms.parties));
        if (!signed) {
            uint16 n = uint16(l.claimed + roots.length);
            bytes memory input = abi.encodeCall(IEscrow.claim, (terms.provider, terms.nums, parties, n, tip, roots));
            _call(terms.provider, input, ok, "claim");
            return;
        }
        bytes32 digest = escrow.hashClaim(_id(terms), uint16(l.claimed + roots.length), tip);
        bytes memory signature = _sign(terms.provider, digest);
        _call(
            address(this),
            abi.encodeCall(IEscrow.claimSigned, (terms.provider, terms.nums, parties, roots, signature)),
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

    // ---------------------------------------------------------------- the model

    function _sync(Lease storage l) private {
        if (l.phase != Phase.Active && l.phase != Phase.Closing) return;
        if (l.claimed == l.accepted || block.timestamp < l.t + rules[l.rules].window) return;
        l.accepted = l.claimed;
        l.acceptedTip = l.claimedTip;
        delete l.pending;
        if (l.phase == Phase.Closing) l.late = false;
    }

    function _pay(Lease storage l) private {
        bytes32 bid = l.terms.parties.bid;
        for (uint256 i = l.settled + 1; i <= l.accepted; ++i) {
            assertTrue(!paid[bid][i], "an index is paid once");
            paid[bid][i] = true;
        }
        uint256 count = l.accepted - l.settled;
        balances[l.terms.provider] += _price(l.terms.nums) * count;
        balances[l.terms.parties.feeTo] += l.bid.fee * count;
        l.settled = l.accepted;
    }

    function _void(Lease storage l) private {
        l.claimed = l.accepted;
        l.claimedTip = l.acceptedTip;
        delete l.pending;
        _pay(l);
    }

    function _exit(Lease storage l, uint256 toProvider, uint256 toClient) private {
        uint256 rest = _lastIndex(l.terms.nums) - l.accepted;
        balances[l.terms.provider] += toProvider;
        balances[l.terms.parties.client] += toClient + rest * (_price(l.terms.nums) + l.bid.fee);
        l.phase = !l.byClient && (rest != 0 || l.more) ? Phase.Closed : Phase.None;
        l.late = l.byClient = l.more = l.claimedInClosing = false;
    }

    // ---------------------------------------------------------------- the invariants, by number

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
        bytes20 expected = l.phase == Phase.Challenged ? l.acceptedTip : l.claimedTip;
        assertEq(bytes32(tip), bytes32(expected), "tip");
    }

    function _status(Lease storage l) private view returns (uint256) {
        return uint8(l.phase) | (l.fromClosing ? 0x08 : 0) | (l.byClient ? 0x10 : 0) | (l.late ? 0x20 : 0)
            | (l.more ? 0x40 : 0) | (l.claimedInClosing ? 0x80 : 0);
    }

    /// @notice 5 and 7: balances are what the protocol's table gives.
    function checkBalances() public view {
        for (uint256 i; i < accounts.length; ++i) {
            assertEq(_free(accounts[i]), balances[accounts[i]], "free");
        }
    }

    /// @notice 9
    function checkActive() public view {
        for (uint256 i; i < accounts.length; ++i) {
            (, uint16 active,,) = escrow.account(accounts[i]);
            assertEq(active, _activeOf(accounts[i]), "active");
        }
    }

    function _activeOf(address provider) private view returns (uint256 active) {
        for (uint256 i; i < leases.length; ++i) {
            Lease storage l = leases[i];
            if (l.phase == Phase.None || l.phase == Phase.Closed || l.terms.provider != provider) continue;
            if (l.phase == Phase.Active || (l.phase == Phase.Challenged && !l.fromClosing)) ++active;
        }
    }

    // ---------------------------------------------------------------- plumbing

    function _call(address sender, bytes memory input, bool expected, string memory what) private {
        vm.prank(sender);
        (bool ok, bytes memory output) = address(escrow).call(input);
        if (ok == expected) return;
        revert Failed(string.concat(what, ok ? " went through: 0x" : " failed: 0x", _hex(output)));
    }

    function _snapshot() private {
        delete _before;
        for (uint256 i; i < accounts.length; ++i) {
            _before.push(_free(accounts[i]));
        }
    }

    /// @dev After a move on a lease: only these two balances may have fallen; over its life, in is out.
    function _moved(Lease storage l, address one, address other) private {
        for (uint256 i; i < accounts.length; ++i) {
            uint256 free = _free(accounts[i]);
            if (accounts[i] != one && accounts[i] != other) {
                assertLe(_before[i], free, "a balance falls only by its owner's order or bond");
            }
            l.net += int256(_before[i]) - int256(free);
        }
        if (l.phase == Phase.None || l.phase == Phase.Closed) assertTrue(l.net == 0, "in is out");
    }

    function _free(address owner) private view returns (uint256 free) {
        (free,,,) = escrow.account(owner);
    }

    /// @dev Mostly one that is not over.
    function _pick(uint256 seed) private view returns (Lease storage) {
        uint256 count = leases.length;
        uint256 i = _part(seed, 0) % count;
        if (_part(seed, 1) % 8 != 0) {
            for (uint256 j; j < count && leases[i].phase == Phase.None; ++j) {
                i = (i + 1) % count;
            }
        }
        return leases[i];
    }

    function _find(bytes32 id) private view returns (uint256 i) {
        while (_id(leases[i].terms) != id) ++i;
    }

    function _id(Terms memory terms) private pure returns (bytes32) {
        return keccak256(abi.encode(terms.provider, terms.nums, keccak256(abi.encode(terms.parties))));
    }

    function _lastIndex(uint256 nums) private pure returns (uint256) {
        return uint16(nums >> 224);
    }

    function _price(uint256 nums) private pure returns (uint256) {
        return uint96(nums >> 64);
    }

    function _actor(uint256 seed, uint256 i) private view returns (address) {
        return accounts[_part(seed, i) % ACTORS];
    }

    function _part(uint256 seed, uint256 i) private pure returns (uint256) {
        return uint256(keccak256(abi.encode(seed, i)));
    }

    function _sign(address signer, bytes32 digest) private view returns (bytes memory) {
        for (uint256 i; i < ACTORS; ++i) {
            if (accounts[i] != signer) continue;
            (uint8 v, bytes32 r, bytes32 s) = vm.sign(i + 1, digest);
            return abi.encodePacked(r, s, v);
        }
        revert Failed("no key");
    }

    function _hex(bytes memory data) private pure returns (string memory) {
        bytes memory digits = "0123456789abcdef";
        bytes memory text = new bytes(2 * data.length);
        for (uint256 i; i < data.length; ++i) {
            text[2 * i] = digits[uint8(data[i]) >> 4];
            text[2 * i + 1] = digits[uint8(data[i]) & 15];
        }
        return string(text);
    }
}
