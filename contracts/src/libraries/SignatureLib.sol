// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.28;

import {IERC1271} from "@openzeppelin/contracts/interfaces/IERC1271.sol";

/// @dev Signatures that never revert: what is malformed is just not valid.
library SignatureLib {
    /// What a contract wallet may spend on saying yes. No wallet can stop a batch.
    uint256 internal constant WALLET_GAS = 60_000;

    uint256 private constant HALF_ORDER = 0x7FFFFFFFFFFFFFFFFFFFFFFFFFFFFFFF5D576E7357A4501DDFE92F46681B20A0;

    /// @return signer of 65 bytes (r, s, v) or 64 bytes (EIP-2098), s in the lower half; else 0
    function recover(bytes32 digest, bytes calldata signature) internal pure returns (address signer) {
        if (signature.length != 65 && signature.length != 64) return address(0);
        bytes32 r;
        bytes32 s;
        uint8 v;
        assembly ("memory-safe") {
            r := calldataload(signature.offset)
            s := calldataload(add(signature.offset, 0x20))
            v := byte(0, calldataload(add(signature.offset, 0x40)))
        }
        if (signature.length == 64) {
            v = 27 + uint8(uint256(s) >> 255);
            s = (s << 1) >> 1;
        }
        if (uint256(s) > HALF_ORDER) return address(0);
        return ecrecover(digest, v, r, s);
    }

    /// @notice Signed by the key of `signer`, or else by `signer` as an ERC-1271 wallet.
    function isValid(address signer, bytes32 digest, bytes calldata signature) internal view returns (bool) {
        address recovered = recover(digest, signature);
        if (recovered == signer && signer != address(0)) return true;
        return signer.code.length != 0 && _walletSays(signer, digest, signature);
    }

    function _walletSays(address wallet, bytes32 digest, bytes calldata signature) private view returns (bool yes) {
        bytes memory input = abi.encodeCall(IERC1271.isValidSignature, (digest, signature));
        bytes32 magic = IERC1271.isValidSignature.selector;
        uint256 gasLimit = WALLET_GAS;
        // In assembly, because Solidity would copy all that the wallet returns.
        assembly ("memory-safe") {
            let success := staticcall(gasLimit, wallet, add(input, 0x20), mload(input), 0x00, 0x20)
            yes := and(success, and(gt(returndatasize(), 0x1f), eq(mload(0x00), magic)))
        }
    }
}
