// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.28;

import {Escrow} from "../../src/Escrow.sol";
import {Bid, Phase, Rules, Terms} from "../../src/interfaces/IEscrow.sol";
import {DevToken} from "../../src/periphery/DevToken.sol";
import {RestlessArbiter} from "../utils/Arbiters.sol";
import {Protocol} from "../utils/Protocol.sol";
import {Wallet} from "../utils/Wallets.sol";

/// @notice A plain model of the protocol's machine and of everybody's balance, beside the escrow that it foretells.
/// @dev A move changes the model first, calls the escrow, and compares. So the model is up to date when the arbiter
/// calls back.
abstract contract Model is Protocol {
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
        uint256 k;
        uint8 verdict;
        /// What the parties' balances gave to the lease, less what came back.
        int256 net;
    }

    /// The last of them is a contract wallet.
    uint256 internal constant ACTORS = 6;
    uint32 internal constant WINDOW = 100;
    uint32 internal constant TIMEOUT = 150;
    uint32 internal constant ARBITER_TIMEOUT = 200;
    uint96 internal constant ARBITER_FEE = 7;
    address internal constant NOBODY = address(0);

    Escrow public immutable escrow;
    DevToken public immutable token;
    address[] public accounts; // the actors, the arbiter, and nobody, who has what is burnt
    Rules[2] internal rules;
    RestlessArbiter internal arbiter;
    Wallet internal wallet;
    Lease[] internal leases;
    uint256 public donated;
    mapping(address => uint256) public balances;
    mapping(address => uint32) internal pages;
    mapping(address => uint256) internal bits;
    mapping(bytes32 bid => mapping(uint256 index => bool)) internal paid;
    mapping(string => uint256) public calls;

    constructor(Escrow escrow_, DevToken token_) {
        escrow = escrow_;
        token = token_;
        arbiter = new RestlessArbiter();
        wallet = new Wallet(vm.addr(ACTORS));
        for (uint256 i; i < ACTORS; ++i) {
            accounts.push(i == ACTORS - 1 ? address(wallet) : vm.addr(i + 1));
            token.faucet(accounts[i], 100_000);
            vm.prank(accounts[i]);
            token.approve(address(escrow), type(uint256).max);
        }
        accounts.push(address(arbiter));
        accounts.push(NOBODY);
        for (uint256 i; i < ACTORS; ++i) {
            _deposit(i, 10_000);
        }
        rules[0] = Rules(address(arbiter), ARBITER_FEE, ARBITER_TIMEOUT, TIMEOUT, WINDOW, "v");
        // Without a fee, and with a window longer than the timeout.
        rules[1] = Rules(address(arbiter), 0, ARBITER_TIMEOUT, TIMEOUT, TIMEOUT + 50, "v");
    }

    function _deposit(uint256 actor, uint256 amount) internal {
        vm.prank(accounts[actor]);
        escrow.deposit(accounts[actor], amount);
        balances[accounts[actor]] += amount;
    }

    // ---------------------------------------------------------------- what a lease does to balances

    /// @dev Of a balance only an order signed by its owner, or a bond, takes anything.
    function _take(Lease storage l, address from, uint256 amount) internal {
        balances[from] -= amount;
        l.net += int256(amount);
    }

    function _give(Lease storage l, address to, uint256 amount) internal {
        balances[to] += amount;
        l.net -= int256(amount);
    }

    function _sync(Lease storage l) internal {
        if (!_isLive(l) || l.claimed == l.accepted || block.timestamp < l.t + rules[l.rules].window) return;
        l.accepted = l.claimed;
        l.acceptedTip = l.claimedTip;
        delete l.pending;
        if (l.phase == Phase.Closing) l.late = false;
    }

    function _pay(Lease storage l) internal {
        bytes32 bid = l.terms.parties.bid;
        for (uint256 i = l.settled + 1; i <= l.accepted; ++i) {
            assertTrue(!paid[bid][i], "an index is paid once");
            paid[bid][i] = true;
        }
        uint256 count = l.accepted - l.settled;
        _give(l, l.terms.provider, _price(l.terms.nums) * count);
        _give(l, l.terms.parties.feeTo, l.bid.fee * count);
        l.settled = l.accepted;
    }

    function _void(Lease storage l) internal {
        l.claimed = l.accepted;
        l.claimedTip = l.acceptedTip;
        delete l.pending;
        _pay(l);
    }

    function _exit(Lease storage l, uint256 toProvider, uint256 toClient) internal {
        uint256 rest = _lastIndex(l.terms.nums) - l.accepted;
        _give(l, l.terms.provider, toProvider);
        _give(l, l.terms.parties.client, toClient + rest * (_price(l.terms.nums) + l.bid.fee));
        l.phase = !l.byClient && (rest != 0 || l.more) ? Phase.Closed : Phase.None;
        l.late = l.byClient = l.more = l.claimedInClosing = l.fromClosing = false;
        assertTrue(l.net == 0, "in is out");
    }

    /// @dev The dispute is over, and the lease goes on as before.
    function _revive(Lease storage l) internal {
        l.phase = l.fromClosing ? Phase.Closing : Phase.Active;
        l.fromClosing = false;
        l.t = block.timestamp;
    }

    function _activeOf(address provider) internal view returns (uint256 active) {
        for (uint256 i; i < leases.length; ++i) {
            Lease storage l = leases[i];
            if (l.phase == Phase.None || l.phase == Phase.Closed || l.terms.provider != provider) continue;
            if (l.phase == Phase.Active || (l.phase == Phase.Challenged && !l.fromClosing)) ++active;
        }
    }

    function _isLive(Lease storage l) internal view returns (bool) {
        return l.phase == Phase.Active || l.phase == Phase.Closing;
    }

    // ---------------------------------------------------------------- calls

    /// @dev Fails if the call does otherwise than foretold, or any balance.
    function _call(address sender, bytes memory input, bool expected, string memory what) internal {
        vm.prank(sender);
        (bool ok, bytes memory output) = address(escrow).call(input);
        if (ok != expected) revert Failed(string.concat(what, ok ? " went through: 0x" : " failed: 0x", _hex(output)));
        checkBalances();
    }

    /// @notice 3, 5 and 7: balances are what the protocol's table gives.
    function checkBalances() public view {
        for (uint256 i; i < accounts.length; ++i) {
            assertEq(_free(accounts[i]), balances[accounts[i]], "free");
        }
    }

    function _free(address owner) internal view returns (uint256) {
        return _freeIn(escrow, owner);
    }

    /// @dev Mostly one that is not over.
    function _pick(uint256 seed) internal view returns (Lease storage) {
        uint256 count = leases.length;
        uint256 i = _part(seed, 0) % count;
        if (_part(seed, 1) % 8 != 0) {
            for (uint256 j; j < count && leases[i].phase == Phase.None; ++j) {
                i = (i + 1) % count;
            }
        }
        return leases[i];
    }

    /// @dev Mostly one in this phase, if there is one.
    function _pickIn(Phase phase, uint256 seed) internal view returns (Lease storage) {
        uint256 count = leases.length;
        uint256 i = _part(seed, 0) % count;
        if (_part(seed, 1) % 8 != 0) {
            for (uint256 j; j < count && leases[i].phase != phase; ++j) {
                i = (i + 1) % count;
            }
        }
        return leases[i];
    }

    /// @dev Mostly one of which something is claimed that is not paid, if there is one.
    function _pickClaimed(uint256 seed) internal view returns (Lease storage) {
        uint256 count = leases.length;
        uint256 i = _part(seed, 0) % count;
        if (_part(seed, 1) % 8 != 0) {
            for (uint256 j; j < count && (!_isLive(leases[i]) || leases[i].claimed == leases[i].settled); ++j) {
                i = (i + 1) % count;
            }
        }
        return leases[i];
    }

    function _find(bytes32 id) internal view returns (uint256 i) {
        while (_id(leases[i].terms) != id) ++i;
    }

    function _lastIndex(uint256 nums) internal pure returns (uint256) {
        return uint16(nums >> 224);
    }

    function _price(uint256 nums) internal pure returns (uint256) {
        return uint96(nums >> 64);
    }

    /// @dev Of all actors, of two, or one alone: who plays several roles must not gain by it.
    function _actor(uint256 seed, uint256 i) internal view returns (address) {
        uint256 crowd = seed % 5 == 0 ? 1 : seed % 5 == 1 ? 2 : ACTORS;
        return accounts[(_part(seed, 99) + _part(seed, i) % crowd) % ACTORS];
    }

    function _part(uint256 seed, uint256 i) internal pure returns (uint256) {
        return uint256(keccak256(abi.encode(seed, i)));
    }

    /// @dev New roots, and those of no other move.
    function _newRoots(uint256 seed, uint256 count) internal view returns (bytes32[] memory roots) {
        roots = new bytes32[](count);
        for (uint256 i; i < count; ++i) {
            roots[i] = keccak256(abi.encode(seed, block.timestamp, i));
        }
    }

    /// @dev By the key, or for the wallet by its owner's.
    function _sign(address signer, bytes32 digest) internal view returns (bytes memory) {
        for (uint256 i; i < ACTORS; ++i) {
            if (accounts[i] != signer) continue;
            (uint8 v, bytes32 r, bytes32 s) = vm.sign(i + 1, digest);
            return abi.encodePacked(r, s, v);
        }
        revert Failed("no key");
    }

    /// @dev Whether what `_sign` gives is valid for orders and Claims now.
    function _stands(address signer) internal view returns (bool) {
        return signer != address(wallet) || wallet.mood() == Wallet.Mood.Good;
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
