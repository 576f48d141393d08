// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.28;

import {Ask, Bid, IEscrow, Match, Reason, Terms} from "../../src/interfaces/IEscrow.sol";
import {Wallet} from "../utils/Wallets.sol";
import {Vm} from "../utils/Vm.sol";
import {EscrowTest} from "../utils/EscrowTest.sol";

/* open
 * ├── the item names rules with another index than 0: RulesDiffer
 * ├── the Bid's or the Ask's rules are others: RulesDiffer
 * ├── they are left out, and others are signed: BidSignatureInvalid, AskSignatureInvalid
 * ├── the arbiter is 0, or a time is out of the deployment's bounds: RulesOutOfBounds
 * ├── the Bid or the Ask names another matcher: MatcherNotAllowed
 * ├── the Bid has a 0, a fee without a matcher, or a nonce bit from 112 up: BidTermsInvalid
 * ├── the Ask has a 0: AskTermsInvalid
 * ├── the Bid's time has passed: BidExpired
 * ├── the Ask's time has not come, or has passed: AskNotInForce
 * ├── the Bid's page is not the client's: BidCancelled
 * ├── the Bid's nonce is used: BidUsed
 * ├── the Ask's page is not the provider's: AskCancelled
 * ├── the stake is above the Ask's limit: StakeAboveMax
 * ├── the stake does not cover the arbiter's fee: StakeBelowArbiterFee
 * ├── the price is below the Ask's: PriceBelowAsk
 * ├── price and fee are above the Bid's limit: PriceAboveBid
 * ├── the provider has maxActive leases: ProviderBusy
 * ├── the client's free balance is short: BalanceShort
 * ├── the provider's free balance is short: StakeShort
 * ├── the Bid is not signed by the client: BidSignatureInvalid
 * ├── the Ask is not signed by the provider: AskSignatureInvalid
 * └── else
 *     ├── the state, both accounts and the events are as the protocol says
 *     ├── the orders' rules may be left out
 *     ├── what the Ask wants is rounded up
 *     ├── the chain of tips starts at startTip, if that is not 0
 *     ├── the client approves, if the Bid names no approver
 *     ├── the lease ends at maxCheckpoints, and notes that there is more
 *     ├── anyone may match, if no matcher is named
 *     ├── client and provider may be contract wallets
 *     └── client and provider may be one account
 */
contract OpenTest is EscrowTest {
    Match internal item;

    function setUp() public override {
        super.setUp();
        item = _match(_bid(), _ask());
    }

    // Each test below spoils the matching orders in one way.

    function test_RulesIndexNotZero() external {
        item.rules = 1;
        _refused(Reason.RulesDiffer);
    }

    function test_BidRulesDiffer() external {
        item.bid.rules = keccak256("others");
        _refused(Reason.RulesDiffer);
    }

    function test_AskRulesDiffer() external {
        item.ask.rules = keccak256("others");
        _refused(Reason.RulesDiffer);
    }

    function test_RulesLeftOut() external {
        Terms memory terms = _terms(item, 0);
        item.bid.rules = item.ask.rules = 0;
        vm.prank(matcher);
        assertEq(escrow.open(rules, item), _id(terms), "the lease that the signed rules give");
    }

    function test_RulesLeftOutOfOne() external {
        item.bid.rules = 0;
        item.ask.rules = keccak256("others");
        _refusedAsSigned(Reason.RulesDiffer);
        item.ask.rules = _ask().rules;
        _open(_match(_bid(1), _ask()));
        vm.prank(matcher);
        escrow.open(rules, item);
        assertEq(_active(provider), 2, "both");
    }

    /// What is signed names rules: no others fit, and none at all are none.
    function test_RulesLeftOutOfWhatIsSigned() external {
        item.bid.rules = 0;
        _resignItem();
        _refusedAsSigned(Reason.BidSignatureInvalid);
        item.bid.rules = _bid().rules;
        _resignItem();
        item.ask.rules = 0;
        rules.window += 1;
        item.bid.rules = 0;
        _refusedAsSigned(Reason.BidSignatureInvalid);
        rules.window -= 1;
        item.ask.rules = 0;
        item.bid = _bid();
        _resignItem();
        _refusedAsSigned(Reason.AskSignatureInvalid);
    }

    function test_ArbiterZero() external {
        rules.arbiter = address(0);
        _refusedWithRules();
    }

    function test_CheckpointTimeoutOutOfBounds() external {
        rules.checkpointTimeout = _bounds().minCheckpointTimeout - 1;
        _refusedWithRules();
        rules.checkpointTimeout = _bounds().maxCheckpointTimeout + 1;
        _refusedWithRules();
    }

    function test_WindowOutOfBounds() external {
        rules.window = _bounds().minWindow - 1;
        _refusedWithRules();
        rules.window = _bounds().maxWindow + 1;
        _refusedWithRules();
    }

    function test_ArbiterTimeoutOutOfBounds() external {
        rules.arbiterTimeout = _bounds().minArbiterTimeout - 1;
        _refusedWithRules();
        rules.arbiterTimeout = _bounds().maxArbiterTimeout + 1;
        _refusedWithRules();
    }

    function test_RulesAtTheBounds() external {
        rules.checkpointTimeout = _bounds().minCheckpointTimeout;
        rules.window = _bounds().maxWindow;
        rules.arbiterTimeout = _bounds().maxArbiterTimeout;
        _opened();
        rules.checkpointTimeout = _bounds().maxCheckpointTimeout;
        rules.window = _bounds().minWindow;
        rules.arbiterTimeout = _bounds().minArbiterTimeout;
        _open(_match(_bid(1), _ask()));
    }

    function test_BidNamesAnotherMatcher() external {
        item.bid.matcher = stranger;
        _refused(Reason.MatcherNotAllowed);
    }

    function test_AskNamesAnotherMatcher() external {
        item.ask.matcher = stranger;
        _refused(Reason.MatcherNotAllowed);
    }

    function test_BidHasZeros() external {
        for (uint256 i; i < 4; ++i) {
            item.bid = _bid();
            if (i == 0) item.bid.checkpoints = 0;
            if (i == 1) item.bid.units = 0;
            if (i == 2) item.bid.maxPrice = 0;
            if (i == 3) item.bid.stake = 0;
            _refused(Reason.BidTermsInvalid);
        }
    }

    function test_FeeWithoutMatcher() external {
        item.bid.matcher = address(0);
        _refused(Reason.BidTermsInvalid);
    }

    function test_NonceBitTooHigh() external {
        item.bid.nonce = 112;
        _refused(Reason.BidTermsInvalid);
        item.bid.nonce = 255;
        _refused(Reason.BidTermsInvalid);
    }

    function test_AskHasZeros() external {
        for (uint256 i; i < 5; ++i) {
            item.ask = _ask();
            if (i == 0) item.ask.pricePerHour = 0;
            if (i == 1) item.ask.unitsPerHour = 0;
            if (i == 2) item.ask.maxStake = 0;
            if (i == 3) item.ask.maxActive = 0;
            if (i == 4) item.ask.maxCheckpoints = 0;
            _refused(Reason.AskTermsInvalid);
        }
    }

    function test_BidExpired() external {
        vm.warp(item.bid.validUntil + 1);
        _refused(Reason.BidExpired);
        vm.warp(item.bid.validUntil);
        _open(item);
    }

    function test_AskNotYetInForce() external {
        vm.warp(item.ask.validFrom - 1);
        _refused(Reason.AskNotInForce);
        vm.warp(item.ask.validFrom);
        _open(item);
    }

    function test_AskNoLongerInForce() external {
        item.ask.validUntil = uint40(START_TIME + 1);
        vm.warp(START_TIME + 2);
        _refused(Reason.AskNotInForce);
        vm.warp(START_TIME + 1);
        _open(item);
    }

    function test_BidCancelled() external {
        _raisePage(client, 2);
        _refused(Reason.BidCancelled);
        item.bid.nonce = 3 << 8;
        _refused(Reason.BidCancelled);
        item.bid.nonce = 2 << 8;
        _resignItem();
        _open(item);
    }

    function test_BidUsed() external {
        _open(item);
        _refused(Reason.BidUsed);
        item.bid.job = keccak256("another job with the same nonce");
        _refused(Reason.BidUsed);
    }

    function test_AskCancelled() external {
        _raisePage(provider, 2);
        _refused(Reason.AskCancelled);
        item.ask.page = 3;
        _refused(Reason.AskCancelled);
        item.ask.page = 2;
        _resignItem();
        _open(item);
    }

    function test_StakeAboveMax() external {
        item.ask.maxStake = STAKE - 1;
        _refused(Reason.StakeAboveMax);
    }

    function test_StakeBelowArbiterFee() external {
        item.bid.stake = ARBITER_FEE - 1;
        _refused(Reason.StakeBelowArbiterFee);
        item.bid.stake = ARBITER_FEE;
        _resignItem();
        _open(item);
    }

    function test_PriceBelowAsk() external {
        item.price = PRICE - 1;
        _refused(Reason.PriceBelowAsk);
        item.price = 0;
        _refused(Reason.PriceBelowAsk);
    }

    function test_PriceRoundsAgainstTheMatcher() external {
        // 1.5 units of token per checkpoint: 1 is not enough.
        item.bid.units = 3;
        item.ask.pricePerHour = 1;
        item.ask.unitsPerHour = 2;
        item.price = 1;
        _refused(Reason.PriceBelowAsk);
        item.price = 2;
        _resignItem();
        _open(item);
    }

    function test_PriceAboveBid() external {
        item.bid.maxPrice = PRICE + FEE - 1;
        _refused(Reason.PriceAboveBid);
    }

    function test_HugePricesDoNotOverflow() external {
        item.bid.units = type(uint64).max;
        item.bid.maxPrice = type(uint96).max;
        item.ask.pricePerHour = type(uint96).max;
        item.price = type(uint96).max;
        _refused(Reason.PriceBelowAsk);
        item.ask.unitsPerHour = type(uint64).max;
        _refused(Reason.PriceAboveBid); // price + fee has 97 bits
        item.bid.fee = 0;
        item.bid.checkpoints = type(uint16).max;
        item.ask.maxCheckpoints = type(uint16).max;
        _refused(Reason.BalanceShort); // price x count has 112 bits
    }

    function test_ProviderBusy() external {
        item.ask.maxActive = 1;
        _resignItem();
        _open(item);
        item.bid.nonce = 1;
        _refused(Reason.ProviderBusy);
        // Another Ask of the same key does not sell the machine again.
        item.ask.resources = keccak256("the same machine again");
        _refused(Reason.ProviderBusy);
    }

    function test_BalanceShort() external {
        _withdraw(client, FUNDS - COST + 1);
        _refused(Reason.BalanceShort);
        _fund(client, 1);
        _open(item);
        assertEq(_free(client), 0, "all is locked");
    }

    function test_StakeShort() external {
        _withdraw(provider, FUNDS - STAKE + 1);
        _refused(Reason.StakeShort);
        _fund(provider, 1);
        _open(item);
        assertEq(_free(provider), 0, "all is locked");
    }

    function test_BidSignatureInvalid() external {
        item.bidSignature = _sign(stranger, escrow.hashBid(item.bid));
        _refusedAsSigned(Reason.BidSignatureInvalid);
        item.bidSignature = _sign(client, escrow.hashAsk(item.ask));
        _refusedAsSigned(Reason.BidSignatureInvalid);
        item.bidSignature = "";
        _refusedAsSigned(Reason.BidSignatureInvalid);
    }

    function test_BidOfTheZeroAddress() external {
        item.bid.client = address(0);
        _fund(address(this), 1);
        vm.store(address(escrow), keccak256(abi.encode(address(0), 2)), bytes32(uint256(FUNDS) << 160));
        assertEq(_free(address(0)), FUNDS, "funded");
        item.bidSignature = new bytes(65); // recovers to 0
        _refusedAsSigned(Reason.BidSignatureInvalid);
    }

    function test_AskSignatureInvalid() external {
        item.askSignature = _sign(stranger, escrow.hashAsk(item.ask));
        _refusedAsSigned(Reason.AskSignatureInvalid);
        item.askSignature = item.bidSignature;
        _refusedAsSigned(Reason.AskSignatureInvalid);
    }

    function test_SignaturesAreForThisEscrowAndChain() external {
        Match memory m = item;
        vm.chainId(block.chainid + 1);
        _refused(m, Reason.BidSignatureInvalid);
        _resign(m);
        _open(m);
    }

    function test_Opened() external {
        Terms memory terms = _terms(item, 0);
        bytes32 lease = _id(terms);
        bytes32 askId = escrow.hashAsk(item.ask);
        vm.expectEmit(address(escrow));
        emit IEscrow.RulesUsed(terms.parties.rules, rules);
        vm.expectEmit(address(escrow));
        emit IEscrow.Opened(lease, provider, client, askId, terms.nums, PRICE, bytes20(JOB), terms.parties);
        vm.prank(matcher);
        bytes32 got = escrow.open(rules, item);

        assertEq(got, lease, "lease id");
        assertEq(escrow.leaseId(terms), lease, "leaseId()");
        _assertState(lease, ACTIVE, 0, 0, 0, bytes20(JOB));
        _assertTime(lease, START_TIME);
        assertEq(_free(client), FUNDS - COST, "client");
        assertEq(_free(provider), FUNDS - STAKE, "provider");
        assertEq(_active(provider), 1, "active");
        assertEq(_active(client), 0, "client's active");
        (,,, uint112 used) = escrow.account(client);
        assertEq(used, 1, "nonce");
    }

    /// Word for word: the event is not made by Solidity.
    function test_OpenedEvent() external {
        item.bid.startTip = bytes20(keccak256("an earlier job's tip"));
        (item.bid.units, item.ask.unitsPerHour, item.ask.pricePerHour) = (3, 2, 7);
        _resignItem();
        Terms memory terms = _terms(item, 0);
        assertEq(terms.askPrice, 11, "10.5, rounded up");
        bytes32 askId = escrow.hashAsk(item.ask);
        vm.recordLogs();
        _open(item);
        Vm.Log memory log = vm.getRecordedLogs()[1];
        assertEq(log.emitter, address(escrow), "emitter");
        assertEq(log.topics.length, 4, "topics");
        assertEq(log.topics[0], IEscrow.Opened.selector, "topic");
        assertEq(log.topics[1], _id(terms), "lease");
        assertEq(log.topics[2], bytes32(uint256(uint160(provider))), "provider");
        assertEq(log.topics[3], bytes32(uint256(uint160(client))), "client");
        bytes memory expected = abi.encode(askId, terms.nums, terms.askPrice, item.bid.startTip, terms.parties);
        assertEq(keccak256(log.data), keccak256(expected), "data");
    }

    function test_StartTip() external {
        item.bid.startTip = bytes20(keccak256("an earlier job's tip"));
        _resignItem();
        Terms memory terms = _open(item);
        _assertState(_id(terms), ACTIVE, 0, 0, 0, item.bid.startTip);
    }

    function test_ClientApproves() external {
        item.bid.approver = address(0);
        _resignItem();
        Terms memory terms = _open(item);
        assertEq(terms.parties.approver, client, "approver");
        escrow.redeem(_approval(terms, CHECKPOINTS, false));
        _assertGone(_id(terms));
    }

    function test_LeaseEndsAtMaxCheckpoints() external {
        Terms memory terms = _openedFor(4);
        _assertState(_id(terms), ACTIVE | MORE, 0, 0, 0, bytes20(JOB));
        assertEq(uint16(terms.nums >> 224), 4, "end");
        assertEq(_free(client), FUNDS - uint256(PRICE + FEE) * 4, "client");
    }

    function test_AnyoneMayMatch() external {
        item.bid.matcher = address(0);
        item.bid.fee = 0;
        item.ask.matcher = address(0);
        _resignItem();
        vm.prank(stranger);
        escrow.open(rules, item);
    }

    function test_ContractWallets() external {
        Wallet clientWallet = _wallet("client's owner");
        Wallet providerWallet = _wallet("provider's owner");
        item.bid.client = address(clientWallet);
        item.ask.provider = address(providerWallet);
        _resignItem();
        _open(item);
        assertEq(_active(address(providerWallet)), 1, "active");
        item.bid.nonce = 1;
        clientWallet.setMood(Wallet.Mood.SaysNo);
        _refused(Reason.BidSignatureInvalid);
        clientWallet.setMood(Wallet.Mood.Good);
        providerWallet.setMood(Wallet.Mood.SaysNo);
        _refused(Reason.AskSignatureInvalid);
    }

    function test_ClientIsProvider() external {
        item.ask.provider = client;
        _resignItem();
        Terms memory terms = _open(item);
        assertEq(_free(client), FUNDS - COST - STAKE, "both locks");
        assertEq(_active(client), 1, "active");
        _redeem(terms, CHECKPOINTS);
        assertEq(_free(client), FUNDS - FEE * CHECKPOINTS, "back, but for the fee");
        assertEq(_active(client), 0, "active after");
    }

    function test_ClientIsProviderAndShort() external {
        item.ask.provider = client;
        _resignItem();
        _withdraw(client, FUNDS - COST - STAKE + 1);
        _refused(Reason.StakeShort);
    }

    function _resignItem() private {
        Match memory m = item;
        _resign(m);
        item = m;
    }

    function _refused(Reason reason) private {
        _resignItem();
        _refusedAsSigned(reason);
    }

    function _refusedAsSigned(Reason reason) private {
        _refused(item, reason);
    }

    function _refusedWithRules() private {
        item.bid = _bid();
        item.ask = _ask();
        _refused(Reason.RulesOutOfBounds);
    }
}
