// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.28;

import {Escrow} from "../../src/Escrow.sol";
import {
    Approval,
    Ask,
    Bid,
    Bounds,
    IEscrow,
    Match,
    Reason,
    Redemption,
    Rules,
    Terms
} from "../../src/interfaces/IEscrow.sol";
import {DevToken} from "../../src/periphery/DevToken.sol";
import {ScriptedArbiter} from "./Arbiters.sol";
import {Deploy} from "./Deploy.sol";
import {Protocol} from "./Protocol.sol";
import {Wallet} from "./Wallets.sol";

/// @notice An escrow with funded parties, orders that match, and every move as a function.
abstract contract EscrowTest is Protocol, Deploy {
    uint256 internal constant START_TIME = 1_800_000_000;
    uint32 internal constant WINDOW = 1 hours;
    uint32 internal constant TIMEOUT = 3 hours;
    uint32 internal constant ARBITER_TIMEOUT = 1 days;
    uint96 internal constant ARBITER_FEE = 5e6;
    uint96 internal constant PRICE = 2e6;
    uint64 internal constant FEE = 1e5;
    uint96 internal constant STAKE = 50e6;
    uint16 internal constant CHECKPOINTS = 6;
    /// What the default Bid locks.
    uint256 internal constant COST = uint256(PRICE + FEE) * CHECKPOINTS;
    uint256 internal constant FUNDS = 1_000e6;
    bytes32 internal constant JOB = keccak256("job");
    bytes32 private constant DOMAIN_TYPEHASH =
        keccak256("EIP712Domain(string name,string version,uint256 chainId,address verifyingContract)");
    bytes32 private constant CLAIM_TYPEHASH = keccak256("Claim(bytes32 lease,uint16 n,bytes20 tip)");
    bytes32 private constant APPROVAL_TYPEHASH = keccak256("Approval(bytes32 lease,uint16 n,bytes20 tip,bool last)");

    DevToken internal token;
    Escrow internal escrow;
    ScriptedArbiter internal arbiter;

    address internal client;
    address internal provider;
    address internal matcher;
    address internal approver;
    address internal challenger;
    address internal stranger;
    mapping(address => uint256) internal keyOf;

    Rules internal rules;

    function setUp() public virtual {
        vm.warp(START_TIME);
        token = _newToken();
        escrow = _newEscrow(token, _bounds());
        arbiter = new ScriptedArbiter();
        client = _actor("client");
        provider = _actor("provider");
        matcher = _actor("matcher");
        approver = _actor("approver");
        challenger = _actor("challenger");
        stranger = _actor("stranger");
        _fund(client, FUNDS);
        _fund(provider, FUNDS);
        _fund(challenger, FUNDS);
        rules = Rules({
            arbiter: address(arbiter),
            arbiterFee: ARBITER_FEE,
            arbiterTimeout: ARBITER_TIMEOUT,
            checkpointTimeout: TIMEOUT,
            window: WINDOW,
            verification: keccak256("verification")
        });
    }

    // ---------------------------------------------------------------- parties

    function _bounds() internal pure returns (Bounds memory) {
        return Bounds({
            minCheckpointTimeout: 1 minutes,
            maxCheckpointTimeout: 7 days,
            minWindow: 1 minutes,
            maxWindow: 1 days,
            minArbiterTimeout: 1 hours,
            maxArbiterTimeout: 30 days
        });
    }

    function _actor(string memory name) internal returns (address actor) {
        uint256 privateKey = uint256(keccak256(bytes(name)));
        actor = vm.addr(privateKey);
        keyOf[actor] = privateKey;
        vm.label(actor, name);
    }

    /// @dev A funded contract wallet, and its owner's key under its address.
    function _wallet(string memory ownerName) internal returns (Wallet wallet) {
        address owner = _actor(ownerName);
        wallet = new Wallet(owner);
        keyOf[address(wallet)] = keyOf[owner];
        _fund(address(wallet), FUNDS);
    }

    /// @dev The orders below are another client's, with a whole balance and unused nonces.
    function _useAnotherClient() internal {
        client = stranger;
        _fund(client, FUNDS);
    }

    function _fund(address owner, uint256 amount) internal {
        token.faucet(address(this), amount);
        token.approve(address(escrow), amount);
        escrow.deposit(owner, amount);
    }

    /// @dev 64 bytes, as in EIP-2098. `signer` may be a wallet whose owner's key is known under its address.
    function _sign(address signer, bytes32 digest) internal view returns (bytes memory) {
        (uint8 v, bytes32 r, bytes32 s) = vm.sign(keyOf[signer], digest);
        return compact(v, r, s);
    }

    /// @dev EIP-712's, without a call that a cheatcode could take for the one it waits for.
    function _digest(bytes32 structHash) internal view returns (bytes32) {
        bytes32 domain = keccak256(
            abi.encode(DOMAIN_TYPEHASH, keccak256("gpumarket"), keccak256("2"), block.chainid, address(escrow))
        );
        return keccak256(abi.encodePacked(hex"1901", domain, structHash));
    }

    function _withdraw(address owner, uint256 amount) internal {
        vm.prank(owner);
        escrow.withdraw(owner, amount);
    }

    function _raisePage(address owner, uint32 page) internal {
        vm.prank(owner);
        escrow.raisePage(page);
    }

    function _free(address owner) internal view returns (uint256) {
        return _freeIn(escrow, owner);
    }

    function _active(address owner) internal view returns (uint256 active) {
        (, active,,) = escrow.account(owner);
    }

    // ---------------------------------------------------------------- orders

    function _bid() internal view returns (Bid memory) {
        return Bid({
            client: client,
            matcher: matcher,
            approver: approver,
            job: JOB,
            rules: escrow.hashRules(rules),
            startTip: 0,
            checkpoints: CHECKPOINTS,
            units: 1_000_000,
            maxPrice: PRICE + FEE,
            fee: FEE,
            stake: STAKE,
            validUntil: uint40(START_TIME + 10 days),
            nonce: 0
        });
    }

    function _bid(uint40 nonce) internal view returns (Bid memory bid) {
        bid = _bid();
        bid.nonce = nonce;
    }

    function _ask() internal view returns (Ask memory) {
        return Ask({
            provider: provider,
            matcher: matcher,
            resources: keccak256("resources"),
            rules: escrow.hashRules(rules),
            pricePerHour: PRICE,
            unitsPerHour: 1_000_000,
            maxStake: STAKE,
            maxActive: 2,
            maxCheckpoints: 100,
            validFrom: uint40(START_TIME),
            validUntil: uint40(START_TIME + 20 days),
            page: 0
        });
    }

    function _match(Bid memory bid, Ask memory ask) internal view returns (Match memory item) {
        item.bid = bid;
        item.ask = ask;
        item.price = PRICE;
        _resign(item);
    }

    function _continue(Bid memory bid, Ask memory ask, Terms memory prev) internal view returns (Match memory item) {
        item = _match(bid, ask);
        item.prevProvider = prev.provider;
        item.prevNums = prev.nums;
        item.prevAskPrice = prev.askPrice;
        item.prevPrev = prev.parties.prev;
    }

    function _resign(Match memory item) internal view {
        item.bidSignature = _sign(item.bid.client, escrow.hashBid(item.bid));
        item.askSignature = _sign(item.ask.provider, escrow.hashAsk(item.ask));
    }

    // ---------------------------------------------------------------- terms, tips

    /// @dev The terms that the protocol gives to a match, from the index `start`.
    function _terms(Match memory item, uint256 start) internal view returns (Terms memory) {
        return _termsUnder(rules, item, escrow.hashBid(item.bid), start);
    }

    function _root(uint256 i) internal pure returns (bytes32) {
        return keccak256(abi.encode("root", i));
    }

    /// @dev Roots with indices from..to.
    function _roots(uint256 from, uint256 to) internal pure returns (bytes32[] memory roots) {
        roots = new bytes32[](to + 1 - from);
        for (uint256 i = from; i <= to; ++i) {
            roots[i - from] = _root(i);
        }
    }

    function _tip(uint256 n) internal pure returns (bytes20 tip) {
        return _extended(bytes20(JOB), _roots(1, n));
    }

    // ---------------------------------------------------------------- moves

    function _open(Match memory item) internal returns (Terms memory terms) {
        return _openFrom(item, 0);
    }

    function _openFrom(Match memory item, uint256 start) internal returns (Terms memory terms) {
        terms = _terms(item, start);
        vm.prank(matcher);
        escrow.open(rules, item);
    }

    /// @dev A lease on all of the default Bid.
    function _opened() internal returns (Terms memory) {
        return _open(_match(_bid(), _ask()));
    }

    /// @dev A lease on the first `maxCheckpoints` of the default Bid.
    function _openedFor(uint16 maxCheckpoints) internal returns (Terms memory) {
        Ask memory ask = _ask();
        ask.maxCheckpoints = maxCheckpoints;
        return _open(_match(_bid(), ask));
    }

    function _claim(Terms memory terms, uint256 from, uint256 to) internal {
        _claim(terms, uint16(to), _tip(to), _roots(from, to));
    }

    function _claim(Terms memory terms, uint16 n, bytes20 tip, bytes32[] memory roots) internal {
        vm.prank(terms.provider);
        escrow.claim(terms.provider, terms.nums, terms.askPrice, _hash(terms.parties), n, tip, roots);
    }

    /// @return signature of the provider's Claim that leads to `tip` at n
    function _signedClaim(Terms memory terms, uint16 n, bytes20 tip) internal view returns (bytes memory) {
        return _sign(terms.provider, _digest(keccak256(abi.encode(CLAIM_TYPEHASH, _id(terms), n, tip))));
    }

    function _approval(Terms memory terms, uint16 n, bool last) internal view returns (Redemption memory item) {
        item.terms = terms;
        item.approval = Approval({n: n, tip: _tip(n), last: last});
        _resign(item);
    }

    function _resign(Redemption memory item) internal view {
        Approval memory a = item.approval;
        bytes32 hash = keccak256(abi.encode(APPROVAL_TYPEHASH, _id(item.terms), a.n, a.tip, a.last));
        item.signature = _sign(item.terms.parties.approver, _digest(hash));
    }

    /// @dev While the lease is Challenged, all of `pending` being pending.
    function _redeemChallenged(Redemption memory item, bytes32[] memory pending) internal {
        vm.prank(stranger);
        escrow.redeemChallenged(item, rules, pending);
    }

    function _redeem(Terms memory terms, uint16 n) internal {
        escrow.redeem(_approval(terms, n, false));
    }

    /// @dev The provider stops with an Approval(last).
    function _redeemLast(Terms memory terms, uint16 n) internal {
        _redeemByProvider(_approval(terms, n, true));
    }

    function _redeemByProvider(Redemption memory item) internal {
        vm.prank(item.terms.provider);
        escrow.redeem(item);
    }

    function _end(Terms memory terms, address by) internal {
        vm.prank(by);
        escrow.end(terms);
    }

    function _closeAfterWindow(Terms memory terms) internal {
        vm.warp(block.timestamp + WINDOW);
        escrow.close(terms);
    }

    /// @dev Disputes root k of the claim that reaches from `accepted` to `claimed`.
    function _challenge(Terms memory terms, uint256 accepted, uint256 claimed, uint16 k) internal {
        vm.prank(challenger);
        escrow.challenge(terms, rules, _tip(accepted), _roots(accepted + 1, claimed), k, 0);
    }

    /// @dev The arbiter's verdict, if it is not 0, and its application.
    function _resolve(Terms memory terms, uint8 verdict) internal {
        arbiter.rule(_dispute(terms), verdict);
        if (verdict == 0) vm.warp(block.timestamp + ARBITER_TIMEOUT);
        escrow.resolve(terms, rules);
    }

    /// @return id of the dispute over the lease
    function _dispute(Terms memory terms) internal view returns (bytes32 id) {
        (id,,,) = escrow.dispute(_id(terms));
    }

    // ---------------------------------------------------------------- expectations

    function _refused(Match memory item, Reason reason) internal {
        _expectRefusal(reason);
        vm.prank(matcher);
        escrow.open(rules, item);
    }

    function _refused(Redemption memory item, Reason reason) internal {
        _expectRefusal(reason);
        escrow.redeem(item);
    }

    function _expectRefusal(Reason reason) private {
        vm.expectRevert(abi.encodeWithSelector(IEscrow.Escrow_Refused.selector, reason));
    }

    function _expectBadIndex(uint256 index, uint256 lowest, uint256 highest) internal {
        vm.expectRevert(abi.encodeWithSelector(IEscrow.Escrow_BadIndex.selector, index, lowest, highest));
    }

    function _expectWrongPhase(bytes32 lease, uint8 status) internal {
        vm.expectRevert(abi.encodeWithSelector(IEscrow.Escrow_WrongPhase.selector, lease, status));
    }

    function assertEq(Reason got, Reason expected, string memory what) internal pure {
        assertEq(uint8(got), uint8(expected), what);
    }

    function _assertState(bytes32 lease, uint8 status, uint256 settled, uint256 accepted, uint256 claimed, bytes20 tip)
        internal
        view
    {
        (uint8 gotStatus, uint16 gotSettled, uint16 gotAccepted, uint16 gotClaimed,, bytes20 gotTip) =
            escrow.state(lease);
        assertEq(gotStatus, status, "status");
        assertEq(gotSettled, settled, "settled");
        assertEq(gotAccepted, accepted, "accepted");
        assertEq(gotClaimed, claimed, "claimed");
        assertEq(bytes32(gotTip), bytes32(tip), "tip");
    }

    function _assertTime(bytes32 lease, uint256 expected) internal view {
        (,,,, uint40 t,) = escrow.state(lease);
        assertEq(t, expected, "t");
    }

    function _assertGone(bytes32 lease) internal view {
        _assertState(lease, 0, 0, 0, 0, 0);
        _assertTime(lease, 0);
    }
}
