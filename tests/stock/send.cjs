// Pays once by cosmjs: send.cjs TO AMOUNT DENOM, with the variables of `dvbctl env` around it.
const fs = require("fs");
const { DirectSecp256k1HdWallet } = require("@cosmjs/proto-signing");
const { SigningStargateClient } = require("@cosmjs/stargate");

async function main([to, amount, denom]) {
  const words = fs.readFileSync(process.env.DVB_MNEMONIC_FILE, "utf8").trim();
  const prefix = to.slice(0, to.lastIndexOf("1"));
  const wallet = await DirectSecp256k1HdWallet.fromMnemonic(words, { prefix });
  const [{ address: from }] = await wallet.getAccounts();
  const client = await SigningStargateClient.connectWithSigner(process.env.DVB_RPC, wallet, { broadcastPollIntervalMs: 200 });
  const fee = { amount: [{ denom, amount: "5000" }], gas: "200000" };
  const { code, height, transactionHash } = await client.sendTokens(from, to, [{ denom, amount }], fee);
  client.disconnect();
  console.log(JSON.stringify({ from, code, height, transactionHash }));
}

main(process.argv.slice(2)).catch((error) => {
  console.error(error);
  process.exit(1);
});
