console.log('for the tests');
