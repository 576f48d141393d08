// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.28;

/// Terms on timing and arbitration. Both orders of a lease sign the same hash of them. Seconds and token units.
struct Rules {
    address arbiter;
    uint96 arbiterFee;
    uint32 arbiterTimeout;
    uint32 checkpointTimeout;
    uint32 window;
    bytes32 verification;
}

struct Bid {
    address client;
    /// 0: anyone may match; the fee must then be 0.
    address matcher;
    /// 0: the client itself. Must be able to sign with ECDSA.
    address approver;
    bytes32 job;
    bytes32 rules;
    /// 0: the chain of tips starts from the job hash.
    bytes20 startTip;
    uint16 checkpoints;
    uint64 units;
    uint96 maxPrice;
    uint64 fee;
    uint96 stake;
    uint40 validUntil;
    /// page << 8 | bit, bit < 112
    uint40 nonce;
}

struct Ask {
    address provider;
    /// 0: anyone may match.
    address matcher;
    bytes32 resources;
    bytes32 rules;
    uint96 pricePerHour;
    uint64 unitsPerHour;
    uint96 maxStake;
    uint16 maxActive;
    uint16 maxCheckpoints;
    uint40 validFrom;
    uint40 validUntil;
    uint32 page;
}

/// One matched pair, as `open` takes it. `rules` of both orders may be 0 here, and then stand for the rules that the
/// index names: what was signed holds their hash. The prev fields are 0 for a job's first lease; else they name the
/// Closed lease of the same Bid that this one continues.
struct Match {
    Bid bid;
    Ask ask;
    /// Index into the array of rules that comes with the batch.
    uint256 rules;
    uint96 price;
    address prevProvider;
    uint256 prevNums;
    /// The `prev` of the lease that this one continues.
    bytes32 prevPrev;
    bytes bidSignature;
    bytes askSignature;
    /// Last, where it gives `open` a low selector: those are tried in order.
    uint96 prevAskPrice;
}

struct Parties {
    bytes32 bid;
    bytes32 job;
    bytes32 prev;
    bytes32 rules;
    address client;
    address approver;
    address feeTo;
    uint96 stake;
}

/// All that a lease id commits to: id = keccak256(abi.encode(provider, nums, askPrice, keccak256(abi.encode(parties)))).
struct Terms {
    address provider;
    /// start16 | end16 | window32 | timeout32 | price96 | fee64, the first in the highest bits
    uint256 nums;
    /// What the Ask itself wants for a checkpoint, rounded up: the most that silence costs. At most the price.
    uint96 askPrice;
    Parties parties;
}

struct Approval {
    uint16 n;
    bytes20 tip;
    bool last;
}

struct Redemption {
    Terms terms;
    Approval approval;
    bytes signature;
}

/// Limits on rules, fixed at deployment. Inclusive. Seconds.
struct Bounds {
    uint32 minCheckpointTimeout;
    uint32 maxCheckpointTimeout;
    uint32 minWindow;
    uint32 maxWindow;
    uint32 minArbiterTimeout;
    uint32 maxArbiterTimeout;
}

/// Why `open` or `redeem` refused an item: the first of these that applies.
enum Reason {
    Ok,
    // open
    RulesDiffer,
    RulesOutOfBounds,
    MatcherNotAllowed,
    BidTermsInvalid,
    AskTermsInvalid,
    BidExpired,
    AskNotInForce,
    BidCancelled,
    BidUsed,
    AskCancelled,
    StakeAboveMax,
    StakeBelowArbiterFee,
    PriceBelowAsk,
    PriceAboveBid,
    PrevNotContinuable,
    ProviderBusy,
    BalanceShort,
    StakeShort,
    BidSignatureInvalid,
    AskSignatureInvalid,
    // redeem
    LeaseNotLive,
    IndexTooLow,
    IndexTooHigh,
    ApprovalSignatureInvalid
}

/// Where a lease stands. A state's status byte is phase | flags.
enum Phase {
    None,
    Active,
    Closing,
    Closed,
    Challenged
}

/// @title Escrow of training leases
/// @notice Holds the token of clients and providers and moves it only for accepted checkpoints, by signed
/// orders and timed exits. The whole protocol is in docs/protocol.md; numbers in brackets are its invariants.
/// @dev Every mutating call but deposits and withdrawals only moves numbers between internal balances. Nobody can
/// pause, upgrade or reconfigure any of it.
///
/// @dev What it assumes, or money may go to the wrong hands:
/// - Token: a transfer out moves exactly the amount asked for. What arrives at a deposit is measured.
/// - Token: the escrow's balance falls by the escrow's own transfers only: no rebasing down, no burning, no seizing.
///   What comes in unasked is nobody's.
/// - Token: a transfer that fails reverts or returns false. One that returns nothing counts as done.
/// - Token: `balanceOf` is true. It alone keeps all balances together within 96 bits.
/// - Clock: `block.timestamp` is UTC seconds below 2^40, never goes back, and is wrong by far less than any window or
///   timeout in `bounds`.
/// - Chain: whoever pays for it gets a transaction in before a window or timeout has passed, even a challenge with 1024
///   roots. If challengers are kept out for a window, a false claim is accepted; if a provider is kept out for a
///   timeout and the closing window after it, it pays for silence.
/// - Chain: what a reorganisation undoes has not happened. Whoever acts on a state elsewhere (works, sends data, rules)
///   waits until its block is final.
/// - Arbiter: is a contract whose `open` accepts honest questions; answers each by the truth, within arbiterTimeout,
///   for at most 100,000 gas.
/// - Arbiter: answers only when the question's block is final. An id takes in the lease, the claimed tip, k and the
///   ground, so a reorganisation can't put another question under it.
///
/// @dev A bad arbiter touches only leases whose rules name it. There it can cost at most the stake (by a false
/// conviction), the client's lock (by false claims that it upholds, or lets nobody challenge) and the bonds of those
/// who challenge; never what is accepted already, nor a free balance.
///
/// @dev What it assumes, or money may be stuck:
/// - Token: transfers out of the escrow go through in the end: no pause for ever, no freezing of the escrow. An owner
///   that is frozen itself can withdraw to another address.
/// - Token: the escrow never holds 2^96 units. From there on deposits are refused, and nothing else.
/// - Clock: time moves on.
/// - Chain: anyone's transaction gets in, in the end.
/// - Arbiter: nothing. One that is silent, reverts, eats its gas, or answers anything but 1 to 4 is passed over after
///   arbiterTimeout.
///
/// @dev What it does not assume: that the token never calls back, or has permits; that contract wallets behave (each
/// has 60,000 gas to say yes); that the arbiter, called last in `challenge`, doesn't call back.
///
/// @dev What it promises of safety:
/// - Between calls, the token balance is at least all free balances, locks, stakes and bonds together; equal, but for
///   tokens sent unasked (1, 2, 3).
/// - A free balance falls only by its owner's withdrawal, signed order, or bond (7).
/// - A checkpoint is accepted only by an Approval that the approver's key signed, or by a whole window in which it
///   could be challenged throughout (6).
/// - What is accepted stays accepted, and is paid at the latest at the lease's exit (4).
/// - Each index of a Bid is paid at most once: `price` to the provider, no less than its Ask's rate; `fee` to the
///   matcher that the Bid names; together no more than the Bid's maxPrice (5).
/// - A Bid has at most one live lease. Once it is complete, given up, or closed after the client ended it, it has no
///   other (5).
/// - A stake is lost whole by a verdict, false or void. By silence, up to what the Ask itself wants for one checkpoint
///   (askPrice): when the lease is ended after a timeout without a claim or an Approval, nothing is pending, and nothing
///   more is accepted until it closes. By nothing else.
/// - By a void nobody gains: what the arbiter's fee leaves of the stake is burnt.
/// - Where money goes does not depend on who posts a signed message or takes an exit. But only the provider closes with
///   `last`, and only the client's `end` stops the Bid.
/// - An item that a batch refuses has no effect, and stops none of the others.
///
/// @dev What it promises of liveness (8), to anyone where nobody is named:
/// - A free balance can be withdrawn by its owner at any time.
/// - Active: provider and client can `end` it at any time; anyone can when a timeout has passed since the last opening,
///   claim, Approval or verdict, and so has the window of what is pending.
/// - Active, Closing: what is pending is accepted when its window has passed, without anybody's word.
/// - Active, Closing, Challenged: what is accepted can be collected at once.
/// - Closing: can be closed when a window has passed since the end, or since the one claim that the provider may still
///   make. A challenge that is lost restarts the window.
/// - Challenged: can be resolved when the arbiter has answered, or arbiterTimeout after the challenge.
/// - Closed: holds no tokens. Another lease of the Bid goes on from it, or the client gives it up.
/// - All that an exit takes is on chain: the terms in `Opened`, the rules in the opening's calldata.
interface IEscrow {
    // ---------------------------------------------------------------- events
    event Deposited(address indexed account, address indexed from, uint256 amount);
    event Withdrawn(address indexed account, address indexed to, uint256 amount);
    event PageRaised(address indexed account, uint32 page);
    /// @param tip the tip at the lease's start
    event Opened(
        bytes32 indexed lease,
        address indexed provider,
        address indexed client,
        bytes32 ask,
        uint256 nums,
        uint96 askPrice,
        bytes20 tip,
        Parties parties
    );
    /// @notice Comes before what is opened under these rules: disputes need them.
    event RulesUsed(bytes32 indexed hash, Rules rules);
    /// @notice An item of a batch was left out; the rest went on.
    event Skipped(uint256 indexed index, Reason reason);
    /// @param n the newest claimed index
    event Claimed(bytes32 indexed lease, uint16 n, bytes32[] roots);
    /// @notice Accepted up to n by approval and paid up to n. n = end: the lease is complete, the stake is free;
    /// if the Bid goes on beyond that, `Closed` follows.
    event Approved(bytes32 indexed lease, uint16 n, bytes20 tip);
    /// @notice Paid up to n after a window passed. n = end: as for `Approved`.
    event Settled(bytes32 indexed lease, uint16 n);
    /// @param status the new status byte: phase and flags. 0: the client gave up a Closed lease
    event Ended(bytes32 indexed lease, address indexed by, uint8 status);
    /// @param claimedRoot the disputed root k
    /// @param signedTip where the signed Claim leads to; 0: the pending claim itself is disputed
    event Challenged(
        bytes32 indexed lease,
        bytes32 indexed id,
        address indexed challenger,
        uint16 k,
        bytes20 acceptedTip,
        bytes32 claimedRoot,
        uint8 ground,
        bytes20 signedTip,
        uint256 bond,
        address arbiter,
        uint256 arbiterFee
    );
    /// @param verdict 1 true, 2 false, 3 void, 4 unreproducible, 0 the arbiter stayed silent, 5 an Approval of the
    /// disputed checkpoint was redeemed
    event Resolved(bytes32 indexed lease, bytes32 indexed id, uint8 verdict);
    /// @param accepted paid up to here; the rest of the lock went back to the client
    /// @param penalty part of the stake that went to the client, of a silent or a convicted provider
    /// @param continuable whether another lease of the same Bid may follow
    event Closed(bytes32 indexed lease, uint16 accepted, uint256 penalty, bool continuable);

    // ---------------------------------------------------------------- errors
    error Escrow_Refused(Reason reason);
    error Escrow_WrongPhase(bytes32 lease, uint8 status);
    error Escrow_TooEarly(uint256 nowTime, uint256 allowedFrom);
    error Escrow_TooLate(uint256 nowTime, uint256 allowedUntil);
    error Escrow_BadIndex(uint256 index, uint256 lowest, uint256 highest);
    error Escrow_NotAllowed(address caller);
    error Escrow_BadSignature(address signer);
    error Escrow_TipMismatch(bytes20 expected, bytes20 got);
    error Escrow_RulesMismatch(bytes32 expected, bytes32 got);
    error Escrow_NothingPending(bytes32 lease);
    error Escrow_AlreadyClaimedInClosing(bytes32 lease);
    error Escrow_BalanceShort(address account, uint256 free, uint256 needed);
    error Escrow_NoVerdict(bytes32 id, uint256 silentFrom);
    error Escrow_GasTooLow(uint256 gas, uint256 needed);
    error Escrow_ZeroAmount();
    error Escrow_ZeroAddress();
    error Escrow_PageNotHigher(uint32 current, uint32 asked);
    error Escrow_TooManyTokens(uint256 held);
    error Escrow_ReceivedOther(uint256 received, uint256 amount);
    error Escrow_BoundsInvalid();

    // ---------------------------------------------------------------- balances
    /// @notice Moves `amount` of the caller's tokens in, to the free balance of `account`. Refused if another amount
    /// arrives, as of a token with a fee on transfers.
    function deposit(address account, uint256 amount) external;

    /// @notice `deposit` with an EIP-2612 permit. A permit that someone else already used is no obstacle.
    function depositWithPermit(address account, uint256 amount, uint256 deadline, uint8 v, bytes32 r, bytes32 s)
        external;

    /// @notice Moves `amount` of the caller's free balance out, to `to`. Not to the escrow itself: it would be nobody's.
    function withdraw(address to, uint256 amount) external;

    /// @notice Cancels every order of the caller that has not been opened and names a lower page.
    function raisePage(uint32 page) external;

    // ---------------------------------------------------------------- leases
    /// @notice Opens one lease, or reverts with `Escrow_Refused`. `item.rules` must be 0.
    function open(Rules calldata rules, Match calldata item) external returns (bytes32 lease);

    /// @notice Opens each item that can be opened and emits `Skipped` for each that can't.
    function openBatch(Rules[] calldata rules, Match[] calldata items) external returns (Reason[] memory reasons);

    /// @notice The provider claims the next checkpoints. Their acceptance window starts (again).
    /// @param parties keccak256(abi.encode(Parties))
    /// @param n the resulting claimed index: else whoever redeems or claims first could shift the roots
    /// @param tip the resulting tip: else an Approval of another past could be slipped under them
    /// @param roots at most 1024 may be pending
    function claim(
        address provider,
        uint256 nums,
        uint96 askPrice,
        bytes32 parties,
        uint16 n,
        bytes20 tip,
        bytes32[] calldata roots
    ) external;

    /// @notice `claim` by anyone, with the provider's signed Claim that names the resulting index and tip. Active only.
    function claimSigned(
        address provider,
        uint256 nums,
        uint96 askPrice,
        bytes32 parties,
        bytes32[] calldata roots,
        bytes calldata signature
    ) external;

    /// @notice Pays up to an Approval's index. By anyone; `last` also closes the lease if the provider calls.
    function redeem(Redemption calldata item) external;

    /// @notice Redeems each item that can be redeemed and emits `Skipped` for each that can't.
    function redeemBatch(Redemption[] calldata items) external returns (Reason[] memory reasons);

    /// @notice Pays what a passed window has accepted. By anyone. Completes the lease at its end.
    function collect(Terms calldata terms) external;

    /// @notice Active: starts the closing window. By provider or client at any time, by anyone after the timeout.
    /// Closing, Challenged: the client says that the Bid ends with this lease. Closed: it gives up the rest of its job.
    function end(Terms calldata terms) external;

    /// @notice Ends a lease whose closing window has passed. By anyone.
    function close(Terms calldata terms) external;

    /// @notice Disputes root k of the pending claim. Locks a bond of the caller's free balance: arbiterFee, and the
    /// price of all that is claimed; of the lease's client and approver no more than the stake.
    /// @param acceptedTip the tip at the accepted index
    /// @param roots all pending roots, from accepted + 1 to claimed
    /// @param ground 0 wrong, 1 withheld
    function challenge(
        Terms calldata terms,
        Rules calldata rules,
        bytes20 acceptedTip,
        bytes32[] calldata roots,
        uint16 k,
        uint8 ground
    ) external;

    /// @notice Disputes root k of a Claim that the provider signed: Active, or Closing within the window. What is
    /// pending on chain meanwhile is as it was if the verdict is true, and void with it if it is not.
    /// @param pending all pending roots, from accepted + 1 to claimed
    /// @param roots those of the signed Claim, from accepted + 1 to its n
    function challengeSigned(
        Terms calldata terms,
        Rules calldata rules,
        bytes20 acceptedTip,
        bytes32[] calldata pending,
        bytes32[] calldata roots,
        uint16 k,
        uint8 ground,
        bytes calldata signature
    ) external;

    /// @notice Pays up to an Approval's index while the lease is Challenged. By anyone. One of the disputed checkpoint,
    /// or beyond it, ends the dispute: the bond goes back to the challenger, but for the arbiter's fee.
    /// @param pending all pending roots, from accepted + 1 to claimed, if the Approval is of fewer: it must be of
    /// their chain
    function redeemChallenged(Redemption calldata item, Rules calldata rules, bytes32[] calldata pending) external;

    /// @notice Applies the arbiter's verdict, or its silence after arbiterTimeout. By anyone.
    function resolve(Terms calldata terms, Rules calldata rules) external;

    // ---------------------------------------------------------------- views
    function token() external view returns (address);
    function bounds() external view returns (Bounds memory);
    /// @notice What a void burnt is the free balance of address 0, which nobody can move.
    /// Tokens held for all accounts and leases together are at least this and at most the token balance.
    function account(address owner) external view returns (uint96 free, uint16 active, uint32 page, uint112 used);
    /// @notice The stored state, as it is before the next call's sync.
    function state(bytes32 lease)
        external
        view
        returns (uint8 status, uint16 settled, uint16 accepted, uint16 claimed, uint40 t, bytes20 tip);
    function dispute(bytes32 lease)
        external
        view
        returns (bytes32 id, address challenger, uint96 bond, bytes20 claimedTip);
    function leaseId(Terms calldata terms) external pure returns (bytes32);
    function hashRules(Rules calldata rules) external pure returns (bytes32);
    /// @return The EIP-712 digest, which is the order's id everywhere.
    function hashBid(Bid calldata bid) external view returns (bytes32);
    function hashAsk(Ask calldata ask) external view returns (bytes32);
    function hashClaim(bytes32 lease, uint16 n, bytes20 tip) external view returns (bytes32);
    function hashApproval(bytes32 lease, Approval calldata approval) external view returns (bytes32);
}
