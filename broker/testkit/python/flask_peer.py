"""The rival of the HTTP benchmark: Flask in front of Celery, as its users write it.

    gunicorn --workers 2 flask_peer:web
"""

from flask import Flask, jsonify, request

from peer_app import add, app

# A task counts as submitted when the broker has it, as with the others.
app.conf.broker_transport_options = {**(app.conf.broker_transport_options or {}), "confirm_publish": True}
web = Flask(__name__)


@web.post("/add")
def submit():
    result = add.delay(*request.get_json()["args"])
    return jsonify(id=result.id), 202
