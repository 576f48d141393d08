// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.28;

import {ERC20} from "@openzeppelin/contracts/token/ERC20/ERC20.sol";

/// @notice A token of which anyone makes as many as there can be, without permits.
contract PlainToken is ERC20("plain", "PLAIN") {
    function mint(address to, uint256 amount) external {
        _mint(to, amount);
    }
}

/// @notice A token that brings another amount than was asked for, once told which.
contract BentToken is PlainToken {
    uint256 private _arriving;

    function setArriving(uint256 amount) external {
        _arriving = amount;
    }

    function _update(address from, address to, uint256 amount) internal override {
        super._update(from, to, from == address(0) || _arriving == 0 ? amount : _arriving);
    }
}

/// @notice A token that calls whoever was named, once, in the middle of a transfer: before balances move, or after.
contract HookedToken is PlainToken {
    address private _target;
    bytes private _input;
    bool private _early;

    function callBack(address target, bytes calldata input, bool early) external {
        (_target, _input, _early) = (target, input, early);
    }

    function _update(address from, address to, uint256 amount) internal override {
        address target = _target;
        delete _target;
        if (target != address(0) && _early) _call(target);
        super._update(from, to, amount);
        if (target != address(0) && !_early) _call(target);
    }

    function _call(address target) private {
        (bool ok,) = target.call(_input);
        require(ok, "callback");
    }
}
