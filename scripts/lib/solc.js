// `scripts/solc --version` and `scripts/solc --standard-json < input.json`, the two calls that forge makes.
const fs = require("fs");
const solc = require("solc");

const args = process.argv.slice(2);
if (args.includes("--version")) {
  console.log(`solc, the solidity compiler commandline interface\nVersion: ${solc.version()}`);
} else if (args.includes("--standard-json")) {
  const output = solc.compile(fs.readFileSync(0, "utf8"));
  fs.writeFileSync(1, output);
} else {
  console.error(`scripts/solc knows --version and --standard-json, not: ${args.join(" ")}`);
  process.exit(2);
}
