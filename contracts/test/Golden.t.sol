// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.28;

import {IERC20} from "@openzeppelin/contracts/token/ERC20/IERC20.sol";

import {Escrow} from "../src/Escrow.sol";
import {Approval, Ask, Bid, Bounds, Parties, Rules, Terms} from "../src/interfaces/IEscrow.sol";
import {Account} from "../src/libraries/AccountLib.sol";
import {SignatureLib} from "../src/libraries/SignatureLib.sol";
import {State} from "../src/libraries/StateLib.sol";
import {NumsLib, Nums, TipLib} from "../src/libraries/TermsLib.sol";
import {Deploy} from "./utils/Deploy.sol";

/// @notice The vectors in tests/golden, which the Python tests read too.
contract GoldenTest is Deploy {
    string private orders = vm.readFile("tests/golden/orders.json");
    string private checkpoints = vm.readFile("tests/golden/checkpoints.json");
    Escrow private escrow;

    /// @dev The vectors' escrow lives at a given address. Code moved there has the immutables of another place, so
    /// that its domain separator is the one it computes for itself, as after a fork of the chain.
    function setUp() external {
        vm.chainId(_uint(".domain.chainId"));
        Bounds memory any = Bounds(1, 1, 1, 1, 1, 1);
        address place = _address(".domain.verifyingContract");
        vm.etch(place, address(_newEscrow(IERC20(place), any)).code);
        escrow = Escrow(place);
    }

    function test_Rules() external view {
        Rules memory rules = Rules({
            arbiter: _address(".rules.arbiter"),
            arbiterFee: uint96(_uint(".rules.arbiterFee")),
            arbiterTimeout: uint32(_uint(".rules.arbiterTimeout")),
            checkpointTimeout: uint32(_uint(".rules.checkpointTimeout")),
            window: uint32(_uint(".rules.window")),
            verification: _bytes32(".rules.verification")
        });
        assertEq(escrow.hashRules(rules), _bytes32(".rules.hash"), "hash");
    }

    function test_Bid() external view {
        Bid memory bid;
        bid.client = _address(".bid.client");
        bid.matcher = _address(".bid.matcher");
        bid.approver = _address(".bid.approver");
        bid.job = _bytes32(".bid.job");
        bid.rules = _bytes32(".bid.rules");
        bid.startTip = _bytes20(orders, ".bid.startTip");
        bid.checkpoints = uint16(_uint(".bid.checkpoints"));
        bid.units = uint64(_uint(".bid.units"));
        bid.maxPrice = uint96(_uint(".bid.maxPrice"));
        bid.fee = uint64(_uint(".bid.fee"));
        bid.stake = uint96(_uint(".bid.stake"));
        bid.validUntil = uint40(_uint(".bid.validUntil"));
        bid.nonce = uint40(_uint(".bid.nonce"));
        _assertSigned(escrow.hashBid(bid), ".bid", bid.client);
    }

    function test_Ask() external view {
        Ask memory ask;
        ask.provider = _address(".ask.provider");
        ask.matcher = _address(".ask.matcher");
        ask.resources = _bytes32(".ask.resources");
        ask.rules = _bytes32(".ask.rules");
        ask.pricePerHour = uint96(_uint(".ask.pricePerHour"));
        ask.unitsPerHour = uint64(_uint(".ask.unitsPerHour"));
        ask.maxStake = uint96(_uint(".ask.maxStake"));
        ask.maxActive = uint16(_uint(".ask.maxActive"));
        ask.maxCheckpoints = uint16(_uint(".ask.maxCheckpoints"));
        ask.validFrom = uint40(_uint(".ask.validFrom"));
        ask.validUntil = uint40(_uint(".ask.validUntil"));
        ask.page = uint32(_uint(".ask.page"));
        _assertSigned(escrow.hashAsk(ask), ".ask", ask.provider);
    }

    function test_Claim() external view {
        bytes32 lease = _bytes32(".claim.lease");
        bytes32 hash = escrow.hashClaim(lease, uint16(_uint(".claim.n")), _bytes20(orders, ".claim.tip"));
        _assertSigned(hash, ".claim", _address(".lease.provider"));
    }

    function test_Approval() external view {
        bytes32 lease = _bytes32(".approval.lease");
        Approval memory approval = Approval({
            n: uint16(_uint(".approval.n")),
            tip: _bytes20(orders, ".approval.tip"),
            last: vm.parseJsonBool(orders, ".approval.last")
        });
        address approver = _address(".lease.parties.approver");
        _assertSigned(escrow.hashApproval(lease, approval), ".approval", approver);
    }

    function test_Lease() external view {
        Terms memory terms;
        terms.provider = _address(".lease.provider");
        Nums nums = NumsLib.pack(
            _uint(".lease.start"),
            _uint(".lease.end"),
            _uint(".lease.window"),
            _uint(".lease.timeout"),
            _uint(".lease.price"),
            _uint(".lease.fee")
        );
        terms.nums = Nums.unwrap(nums);
        terms.askPrice = uint96(_uint(".lease.ask_price"));
        Parties memory parties = terms.parties;
        parties.bid = _bytes32(".lease.parties.bid");
        parties.job = _bytes32(".lease.parties.job");
        parties.prev = _bytes32(".lease.parties.prev");
        parties.rules = _bytes32(".lease.parties.rules");
        parties.client = _address(".lease.parties.client");
        parties.approver = _address(".lease.parties.approver");
        parties.feeTo = _address(".lease.parties.feeTo");
        parties.stake = uint96(_uint(".lease.parties.stake"));
        assertEq(bytes32(terms.nums), _bytes32(".lease.nums"), "nums");
        assertEq(keccak256(abi.encode(parties)), _bytes32(".lease.partiesHash"), "parties");
        assertEq(escrow.leaseId(terms), _bytes32(".lease.id"), "id");
    }

    function test_Account() external view {
        Account a = Account.wrap(uint256(_bytes32(".account.word")));
        assertEq(a.free(), _uint(".account.free"), "free");
        assertEq(a.active(), _uint(".account.active"), "active");
        assertEq(a.page(), _uint(".account.page"), "page");
        assertEq(a.used(), _uint(".account.used"), "used");
    }

    function test_State() external view {
        State s = State.wrap(uint256(_bytes32(".state.word")));
        assertEq(s.status(), _uint(".state.status"), "status");
        assertEq(s.settled(), _uint(".state.settled"), "settled");
        assertEq(s.accepted(), _uint(".state.accepted"), "accepted");
        assertEq(s.claimed(), _uint(".state.claimed"), "claimed");
        assertEq(s.t(), _uint(".state.t"), "t");
        assertEq(bytes32(s.tip()), bytes32(_bytes20(orders, ".state.tip")), "tip");
    }

    function test_Checkpoints() external view {
        bytes32 job = vm.parseJsonBytes32(checkpoints, ".job");
        bytes32 numericsClass = vm.parseJsonBytes32(checkpoints, ".numericsClass");
        bytes20 tip = _bytes20(checkpoints, ".tip0");
        assertEq(bytes32(tip), bytes32(bytes20(job)), "tip 0");
        uint256 i;
        for (; vm.keyExistsJson(checkpoints, _at(i, "")); ++i) {
            bytes32[] memory roots = new bytes32[](1);
            roots[0] = keccak256(
                abi.encode(
                    keccak256("gpumarket checkpoint 2"),
                    job,
                    vm.parseJsonUint(checkpoints, _at(i, ".index")),
                    vm.parseJsonUint(checkpoints, _at(i, ".step")),
                    vm.parseJsonBytes32(checkpoints, _at(i, ".stateRoot")),
                    vm.parseJsonBytes32(checkpoints, _at(i, ".traceRoot")),
                    numericsClass
                )
            );
            assertEq(roots[0], vm.parseJsonBytes32(checkpoints, _at(i, ".root")), "root");
            tip = this.extend(tip, roots);
            assertEq(bytes32(tip), bytes32(_bytes20(checkpoints, _at(i, ".tip"))), "tip");
        }
        assertTrue(i > 1, "there are checkpoints");
    }

    function extend(bytes20 tip, bytes32[] calldata roots) external pure returns (bytes20) {
        return TipLib.extend(tip, roots);
    }

    function recover(bytes32 digest, bytes calldata signature) external pure returns (address) {
        return SignatureLib.recover(digest, signature);
    }

    function _assertSigned(bytes32 hash, string memory path, address signer) private view {
        assertEq(hash, _bytes32(string.concat(path, ".hash")), string.concat(path, " hash"));
        bytes memory signature = vm.parseJsonBytes(orders, string.concat(path, ".signature"));
        assertEq(this.recover(hash, signature), signer, string.concat(path, " signer, 64 bytes"));
        signature = vm.parseJsonBytes(orders, string.concat(path, ".signature65"));
        assertEq(this.recover(hash, signature), signer, string.concat(path, " signer, 65 bytes"));
    }

    function _uint(string memory path) private view returns (uint256) {
        return vm.parseJsonUint(orders, path);
    }

    function _address(string memory path) private view returns (address) {
        return vm.parseJsonAddress(orders, path);
    }

    function _bytes32(string memory path) private view returns (bytes32) {
        return vm.parseJsonBytes32(orders, path);
    }

    function _bytes20(string memory json, string memory path) private pure returns (bytes20) {
        return bytes20(vm.parseJsonBytes(json, path));
    }

    function _at(uint256 i, string memory field) private pure returns (string memory) {
        return string.concat(".checkpoints[", vm.toString(i), "]", field);
    }
}
