// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.28;

import {Escrow} from "../../src/Escrow.sol";
import {Bid, Phase, Rules, Terms} from "../../src/interfaces/IEscrow.sol";
import {DevToken} from "../../src/periphery/DevToken.sol";
import {ScriptedArbiter} from "../utils/Arbiters.sol";
import {Protocol} from "../utils/Protocol.sol";

/// @notice A plain model of the protocol's machine and of everybody's balance, beside the escrow that it foretells.
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

    function _deposit(uint256 actor, uint256 amount) internal {
        vm.prank(accounts[actor]);
        escrow.deposit(accounts[actor], amount);
        balances[accounts[actor]] += amount;
    }

    // ---------------------------------------------------------------- what a lease does to balances

    function _sync(Lease storage l) internal {
        if (l.phase != Phase.Active && l.phase != Phase.Closing) return;
        if (l.claimed == l.accepted || block.timestamp < l.t + rules[l.rules].window) return;
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
        balances[l.terms.provider] += _price(l.terms.nums) * count;
        balances[l.terms.parties.feeTo] += l.bid.fee * count;
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
        balances[l.terms.provider] += toProvider;
        balances[l.terms.parties.client] += toClient + rest * (_price(l.terms.nums) + l.bid.fee);
        l.phase = !l.byClient && (rest != 0 || l.more) ? Phase.Closed : Phase.None;
        l.late = l.byClient = l.more = l.claimedInClosing = false;
    }

    function _activeOf(address provider) internal view returns (uint256 active) {
        for (uint256 i; i < leases.length; ++i) {
            Lease storage l = leases[i];
            if (l.phase == Phase.None || l.phase == Phase.Closed || l.terms.provider != provider) continue;
            if (l.phase == Phase.Active || (l.phase == Phase.Challenged && !l.fromClosing)) ++active;
        }
    }

    // ---------------------------------------------------------------- calls, and what they move

    function _call(address sender, bytes memory input, bool expected, string memory what) internal {
        vm.prank(sender);
        (bool ok, bytes memory output) = address(escrow).call(input);
        if (ok == expected) return;
        revert Failed(string.concat(what, ok ? " went through: 0x" : " failed: 0x", _hex(output)));
    }

    function _snapshot() internal {
        delete _before;
        for (uint256 i; i < accounts.length; ++i) {
            _before.push(_free(accounts[i]));
        }
    }

    /// @dev After a move on a lease: only these two balances may have fallen; over its life, in is out.
    function _moved(Lease storage l, address one, address other) internal {
        for (uint256 i; i < accounts.length; ++i) {
            uint256 free = _free(accounts[i]);
            if (accounts[i] != one && accounts[i] != other) {
                assertLe(_before[i], free, "a balance falls only by its owner's order or bond");
            }
            l.net += int256(_before[i]) - int256(free);
        }
        if (l.phase == Phase.None || l.phase == Phase.Closed) assertTrue(l.net == 0, "in is out");
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

    function _find(bytes32 id) internal view returns (uint256 i) {
        while (_id(leases[i].terms) != id) ++i;
    }

    function _lastIndex(uint256 nums) internal pure returns (uint256) {
        return uint16(nums >> 224);
    }

    function _price(uint256 nums) internal pure returns (uint256) {
        return uint96(nums >> 64);
    }

    function _actor(uint256 seed, uint256 i) internal view returns (address) {
        return accounts[_part(seed, i) % ACTORS];
    }

    function _part(uint256 seed, uint256 i) internal pure returns (uint256) {
        return uint256(keccak256(abi.encode(seed, i)));
    }

    function _sign(address signer, bytes32 digest) internal view returns (bytes memory) {
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
