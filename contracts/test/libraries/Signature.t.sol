// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.28;

import {SignatureLib} from "../../src/libraries/SignatureLib.sol";
import {Test} from "../utils/Test.sol";
import {Wallet} from "../utils/Wallets.sol";

/* recover, isValid
 * ├── 65 or 64 bytes by the signer: valid
 * ├── s in the upper half, v neither 27 nor 28, another length, another digest: not valid
 * └── the signer is a contract
 *     ├── it says yes in one word: valid
 *     └── it says no, reverts, eats its gas, answers short or with dirt: not valid, at bounded cost
 */
contract SignatureTest is Test {
    uint256 private constant ORDER = 0xFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFEBAAEDCE6AF48A03BBFD25E8CD0364141;

    function testFuzz_BothLengths(uint256 privateKey, bytes32 digest) external view {
        privateKey = bound(privateKey, 1, ORDER - 1);
        address signer = vm.addr(privateKey);
        (uint8 v, bytes32 r, bytes32 s) = vm.sign(privateKey, digest);
        assertTrue(this.isValid(signer, digest, _long(v, r, s)), "65 bytes");
        assertTrue(this.isValid(signer, digest, compact(v, r, s)), "64 bytes");
        assertEq(this.recover(digest, _long(v, r, s)), signer, "65 bytes recover");
        assertTrue(!this.isValid(signer, keccak256(abi.encode(digest)), compact(v, r, s)), "another digest");
    }

    function testFuzz_UpperHalf(uint256 privateKey, bytes32 digest) external view {
        privateKey = bound(privateKey, 1, ORDER - 1);
        (uint8 v, bytes32 r, bytes32 s) = vm.sign(privateKey, digest);
        bytes32 mirrored = bytes32(ORDER - uint256(s));
        assertEq(ecrecover(digest, 55 - v, r, mirrored), vm.addr(privateKey), "the same signature to the EVM");
        assertEq(this.recover(digest, _long(55 - v, r, mirrored)), address(0), "not to us");
    }

    function testFuzz_OtherV(bytes32 digest, uint8 v) external view {
        vm.assume(v != 27 && v != 28);
        (, bytes32 r, bytes32 s) = vm.sign(1, digest);
        assertEq(this.recover(digest, _long(v, r, s)), address(0), "recovered");
    }

    function testFuzz_OtherLengths(bytes32 digest, bytes memory signature) external view {
        vm.assume(signature.length != 64 && signature.length != 65);
        assertEq(this.recover(digest, signature), address(0), "recovered");
        assertTrue(!this.isValid(address(0), digest, signature), "the zero address signs nothing");
    }

    function testFuzz_Garbage(bytes32 digest, bytes32 r, bytes32 s, uint8 v) external view {
        // Whatever is recovered from noise, it never is a given signer or the zero address.
        assertTrue(!this.isValid(vm.addr(1), digest, _long(v, r, s)), "65 bytes");
        assertTrue(!this.isValid(address(0), digest, _long(v, r, s)), "zero address, 65 bytes");
        assertTrue(!this.isValid(address(0), digest, abi.encodePacked(r, s)), "zero address, 64 bytes");
    }

    function testFuzz_Wallet(bytes32 digest, uint8 moodNumber) external {
        Wallet.Mood mood = Wallet.Mood(moodNumber % 7);
        Wallet wallet = new Wallet(vm.addr(7));
        wallet.setMood(mood);
        (uint8 v, bytes32 r, bytes32 s) = vm.sign(7, digest);
        uint256 gas = gasleft();
        bool valid = this.isValid(address(wallet), digest, compact(v, r, s));
        assertLe(gas - gasleft(), 80_000, "gas");
        if (mood != Wallet.Mood.ReturnBomb) assertEq(valid, mood == Wallet.Mood.Good, "valid");
        assertTrue(!this.isValid(address(wallet), keccak256(abi.encode(digest)), compact(v, r, s)), "another digest");
    }

    function isValid(address signer, bytes32 digest, bytes calldata signature) external view returns (bool) {
        return SignatureLib.isValid(signer, digest, signature);
    }

    function recover(bytes32 digest, bytes calldata signature) external pure returns (address) {
        return SignatureLib.recover(digest, signature);
    }

    function _long(uint8 v, bytes32 r, bytes32 s) private pure returns (bytes memory) {
        return abi.encodePacked(r, s, v);
    }
}
