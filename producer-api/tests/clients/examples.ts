// The examples of the documents, by the TypeScript client that openapi-typescript makes of openapi.json: compiled by tsc in
// strict mode, so that the document's types are what a program can use, then run by Node.
//
//     node examples.js http://127.0.0.1:8080
import assert from "node:assert/strict";
import { randomUUID } from "node:crypto";
import createClient from "openapi-fetch";
import type { components, paths } from "./schema.js";

const api = createClient<paths>({ baseUrl: process.argv[2] });

async function result(id: string): Promise<unknown> {
  const answer = await api.GET("/v1/tasks/{id}/result", { params: { path: { id }, query: { wait: 20 } } });
  assert.equal(answer.response.status, 200, JSON.stringify(answer.error));
  return answer.data;
}

// Submit, wait, result.
const mine = `sum-${randomUUID()}`;
const task: components["schemas"]["SubmitTask"] = { task: "demo.add", args: [2], kwargs: { y: 3 }, task_id: mine };
const submitted = await api.POST("/v1/tasks", { body: task });
assert.equal(submitted.response.status, 202, JSON.stringify(submitted.error));
assert.equal(await result(mine), 5);
const again = await api.PUT("/v1/tasks/{id}", { params: { path: { id: mine } }, body: task });
assert.equal(again.response.status, 200);
const shown = await api.GET("/v1/tasks/{id}", { params: { path: { id: mine } } });
assert.equal(shown.data?.state, "SUCCESS");
assert.equal(shown.data?.result, 5);
const called = await api.POST("/v1/call/{task}", { params: { path: { task: "demo.mul" } }, body: { x: 6, y: 7 } });
assert.ok(called.data && "result" in called.data, JSON.stringify(called.error));
assert.equal(called.data.result, 42);

// What goes wrong is a problem with an outcome.
const lost = await api.POST("/v1/tasks", { body: { task: "demo.add", queue: "no-such-queue" } });
assert.equal(lost.response.status, 422);
assert.equal(lost.error?.type, "/problems/unroutable");
assert.equal(lost.error?.outcome, "not_published");
const nobody = await api.GET("/v1/tasks/{id}", { params: { path: { id: "nobody" } } });
assert.equal(nobody.error?.type, "/problems/task-unknown");

// Many, as a group.
const batch = await api.POST("/v1/tasks/batch", {
  body: { group: true, tasks: [{ task: "demo.add", args: [1, 2], ref: "row-1" }, { task: "demo.add", args: [3, 4] }] },
});
assert.ok(batch.data && "group_id" in batch.data && batch.data.group_id, JSON.stringify(batch.error));
const id = batch.data.group_id;
const results = await api.GET("/v1/groups/{id}/results", { params: { path: { id }, query: { wait: 20 } } });
assert.deepEqual(results.data, [3, 7]);
const group = await api.GET("/v1/groups/{id}", { params: { path: { id } } });
assert.equal(group.data?.successful, true);
const looked = await api.POST("/v1/tasks/lookup", { body: { ids: [mine, "nobody"] } });
assert.deepEqual([looked.data?.ready, looked.data?.unknown], [1, 1]);

// A workflow.
const add = (x: number, y: number) => ({ task: "demo.add", args: [x, y] });
const canvas = { chord: { header: [add(1, 1), add(2, 2)], body: { task: "demo.xsum" } } };
const started = await api.POST("/v1/canvas", { body: { canvas } });
assert.ok(started.data && "id" in started.data, JSON.stringify(started.error));
assert.equal(await result(started.data.id), 6);

const forgotten = await api.DELETE("/v1/tasks/{id}", { params: { path: { id: mine } } });
assert.equal(forgotten.response.status, 204);
console.log("submitted, waited, read, grouped, chained");
